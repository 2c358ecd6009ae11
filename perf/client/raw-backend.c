/* The raw backend: what stands behind a tunnel where TLS itself is not to be measured.
 *
 *   raw-backend ROLE:PORT...
 *
 * reply   1 KiB after the first bytes, then FIN; closes when the other side does
 * hold    1 KiB after the first bytes, then silence
 * sink    reads and drops everything
 * source  sends for ever after the first bytes */
#include "sockets.h"

enum role { REPLY, HOLD, SINK, SOURCE };
enum { ANSWER_BYTES = 1024, BULK_BYTES = 256 * 1024, EVENTS_MAX = 256 };

struct peer {
    enum role role;
    int socket;
    int listening;
    int started;
};

static char answer[BULK_BYTES];  /* all 'x': what every role sends */
static char scratch[BULK_BYTES]; /* where what was read is dropped */

static enum role role_of(const char *name)
{
    static const char *const names[] = {"reply", "hold", "sink", "source"};
    for (int role = REPLY; role <= SOURCE; role++)
        if (strcmp(name, names[role]) == 0)
            return (enum role)role;
    fprintf(stderr, "raw-backend: no role %s\n", name);
    exit(2);
}

static struct peer *peer_new(enum role role, int socket, int listening)
{
    struct peer *peer = calloc(1, sizeof *peer);
    if (!peer)
        fail("calloc");
    *peer = (struct peer){.role = role, .socket = socket, .listening = listening};
    return peer;
}

static void end(struct peer *peer)
{
    close(peer->socket);
    free(peer);
}

static void accept_all(int loop, struct peer *listener)
{
    for (;;) {
        int socket = accept4(listener->socket, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (socket < 0)
            return;
        no_delay(socket);
        watch(loop, EPOLL_CTL_ADD, socket, EPOLLIN, peer_new(listener->role, socket, 0));
    }
}

/* Answers the first bytes as the role wants it. */
static void start(int loop, struct peer *peer)
{
    peer->started = 1;
    if (peer->role == REPLY || peer->role == HOLD)
        (void)!send(peer->socket, answer, ANSWER_BYTES, MSG_NOSIGNAL);
    if (peer->role == REPLY)
        shutdown(peer->socket, SHUT_WR);
    if (peer->role == SOURCE)
        watch(loop, EPOLL_CTL_MOD, peer->socket, EPOLLIN | EPOLLOUT, peer);
}

static void serve(int loop, struct peer *peer, uint32_t events)
{
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
        ssize_t count = recv(peer->socket, scratch, sizeof scratch, 0);
        if (count == 0 || (count < 0 && errno != EAGAIN)) {
            end(peer);
            return;
        }
        if (count > 0 && !peer->started)
            start(loop, peer);
    }
    if ((events & EPOLLOUT) && send(peer->socket, answer, sizeof answer, MSG_NOSIGNAL) < 0 && errno != EAGAIN)
        end(peer);
}

int main(int count, char **arguments)
{
    int loop = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[EVENTS_MAX];
    memset(answer, 'x', sizeof answer);
    for (int index = 1; index < count; index++) {
        char *port = strchr(arguments[index], ':');
        if (!port) {
            fprintf(stderr, "usage: raw-backend ROLE:PORT...\n");
            return 2;
        }
        *port++ = 0;
        int listener = listen_on(atoi(port));
        watch(loop, EPOLL_CTL_ADD, listener, EPOLLIN, peer_new(role_of(arguments[index]), listener, 1));
    }
    for (;;) {
        int ready = epoll_wait(loop, events, EVENTS_MAX, -1);
        for (int index = 0; index < ready; index++) {
            struct peer *peer = events[index].data.ptr;
            if (peer->listening)
                accept_all(loop, peer);
            else
                serve(loop, peer, events[index].events);
        }
    }
}
