/* The floor: the least a user-space relay on epoll costs. No policy, no parsing, no limits, no log.
 *
 *   relay CHUNK_BYTES LISTEN_PORT:TARGET_PORT...
 *
 * All directions share one scratch of CHUNK_BYTES. When a send leaves something over, the direction keeps the scratch
 * as it is and stops reading until that is gone; another scratch takes its place, so nothing is copied twice. An end
 * of stream is passed on as a half-close. */
#include "sockets.h"

enum { EVENTS_MAX = 256 };

struct session;

/* One socket of a session, or a listener (session is NULL then). */
struct side {
    int socket;
    int target_port;
    struct session *session;
    struct side *other;
    char *left;       /* bytes read from here that the other side has not taken yet */
    size_t left_bytes, left_offset;
    int ended;        /* nothing more will be read from here */
    uint32_t watched;
};

struct session {
    struct side client, server;
    struct session *next_dead;
    int dead;
};

/* A scratch at rest: its first bytes link to the next one. */
struct spare {
    struct spare *next;
};

static char *scratch;
static struct spare *spares;
static size_t scratch_bytes;
static struct session *dead;

static char *scratch_new(void)
{
    char *taken = (char *)spares;
    if (taken)
        spares = spares->next;
    else if (!(taken = malloc(scratch_bytes)))
        fail("malloc");
    return taken;
}

static void scratch_return(char *bytes)
{
    if (!bytes)
        return;
    ((struct spare *)bytes)->next = spares;
    spares = (struct spare *)bytes;
}

/* The session is freed after the batch: later events of the batch may still point to it. */
static void end(struct session *session)
{
    if (session->dead)
        return;
    session->dead = 1;
    close(session->client.socket);
    close(session->server.socket);
    session->next_dead = dead;
    dead = session;
}

static void bury(void)
{
    while (dead) {
        struct session *session = dead;
        dead = session->next_dead;
        scratch_return(session->client.left);
        scratch_return(session->server.left);
        free(session);
    }
}

static void adjust(int loop, struct side *side)
{
    uint32_t wanted = (side->ended || side->left_bytes ? 0 : EPOLLIN) | (side->other->left_bytes ? EPOLLOUT : 0);
    if (wanted == side->watched)
        return;
    side->watched = wanted;
    watch(loop, EPOLL_CTL_MOD, side->socket, wanted, side);
}

/* Leaves the scratch, from `offset`, with the direction. */
static void keep(struct side *side, size_t offset, size_t count)
{
    side->left = scratch;
    side->left_offset = offset;
    side->left_bytes = count;
    scratch = scratch_new();
}

static void finish(struct side *side)
{
    side->ended = 1;
    shutdown(side->other->socket, SHUT_WR);
    if (side->other->ended)
        end(side->session);
}

/* Reads once from `side` and sends to the other. */
static void pump(struct side *side)
{
    ssize_t count = recv(side->socket, scratch, scratch_bytes, 0);
    if (count == 0) {
        finish(side);
    } else if (count < 0) {
        if (errno != EAGAIN)
            end(side->session);
    } else {
        ssize_t sent = send(side->other->socket, scratch, (size_t)count, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            end(side->session);
        else if (sent < count)
            keep(side, (size_t)(sent < 0 ? 0 : sent), (size_t)(count - (sent < 0 ? 0 : sent)));
    }
}

/* Sends what the other side's reads left over. */
static void flush(struct side *source)
{
    ssize_t sent = send(source->other->socket, source->left + source->left_offset, source->left_bytes, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN)
            end(source->session);
        return;
    }
    source->left_offset += (size_t)sent;
    source->left_bytes -= (size_t)sent;
    if (source->left_bytes == 0) {
        scratch_return(source->left);
        source->left = NULL;
    }
}

static void accept_all(int loop, struct side *listener)
{
    for (;;) {
        int client = accept4(listener->socket, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client < 0)
            return;
        int server = connect_to(listener->target_port);
        struct session *session = calloc(1, sizeof *session);
        if (server < 0 || !session)
            fail("connect");
        no_delay(client);
        session->client = (struct side){.socket = client, .session = session, .other = &session->server, .watched = EPOLLIN};
        session->server = (struct side){.socket = server, .session = session, .other = &session->client, .watched = EPOLLIN};
        watch(loop, EPOLL_CTL_ADD, client, EPOLLIN, &session->client);
        watch(loop, EPOLL_CTL_ADD, server, EPOLLIN, &session->server);
    }
}

static void serve(int loop, struct side *side, uint32_t events)
{
    struct session *session = side->session;
    if (session->dead)
        return;
    if (side->other->left_bytes && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
        flush(side->other);
    else if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
        pump(side);
    if (session->dead)
        return;
    adjust(loop, side);
    adjust(loop, side->other);
}

int main(int count, char **arguments)
{
    int loop = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[EVENTS_MAX];
    if (count < 3) {
        fprintf(stderr, "usage: relay CHUNK_BYTES LISTEN_PORT:TARGET_PORT...\n");
        return 2;
    }
    scratch_bytes = (size_t)atol(arguments[1]);
    scratch = scratch_new();
    for (int index = 2; index < count; index++) {
        struct side *listener = calloc(1, sizeof *listener);
        int port;
        if (!listener || sscanf(arguments[index], "%d:%d", &port, &listener->target_port) != 2)
            fail("relay: LISTEN_PORT:TARGET_PORT");
        listener->socket = listen_on(port);
        watch(loop, EPOLL_CTL_ADD, listener->socket, EPOLLIN, listener);
    }
    for (;;) {
        int ready = epoll_wait(loop, events, EVENTS_MAX, -1);
        for (int index = 0; index < ready; index++) {
            struct side *side = events[index].data.ptr;
            if (side->session)
                serve(loop, side, events[index].events);
            else
                accept_all(loop, side);
        }
        bury();
    }
}
