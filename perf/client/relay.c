/* The floor: the least a user-space relay costs. No policy, no parsing, no limits, no log.
 *
 *   relay epoll|ring CHUNK_BYTES LISTEN_PORT:TARGET_PORT...
 *
 * `epoll` waits with level-triggered epoll; `ring` with one-shot polls of an io_uring, one for each wait: what monoio
 * has to offer to those who hold no buffer while they wait.
 *
 * All directions share one scratch of CHUNK_BYTES. When a send leaves something over, the direction keeps the scratch
 * as it is and stops reading until that is gone; another scratch takes its place, so nothing is copied twice. An end
 * of stream is passed on as a half-close. */
#include "ring.h"

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
    uint32_t watched; /* on epoll */
    uint32_t asked;   /* events that polls of the ring are under way for */
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

static struct ring ring;
static int on_ring;
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

static int is_asked(const struct session *session)
{
    return session->client.asked || session->server.asked;
}

static void close_both(struct session *session)
{
    close(session->client.socket);
    close(session->server.socket);
    session->next_dead = dead;
    dead = session;
}

/* The session is freed after the batch: later events of the batch may still point to it. On a ring it is closed once no
 * poll refers to it, and the shutdown makes them come back. */
static void end(struct session *session)
{
    if (session->dead)
        return;
    session->dead = 1;
    if (!is_asked(session)) {
        close_both(session);
        return;
    }
    shutdown(session->client.socket, SHUT_RDWR);
    shutdown(session->server.socket, SHUT_RDWR);
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

/* The event is the lowest bit: pointers to sides are even. */
static void ask(struct side *side, uint32_t event)
{
    side->asked |= event;
    ring_poll(&ring, side->socket, event, (uint64_t)(uintptr_t)side | (event == EPOLLOUT));
}

static void adjust(int loop, struct side *side)
{
    uint32_t wanted = (side->ended || side->left_bytes ? 0 : EPOLLIN) | (side->other->left_bytes ? EPOLLOUT : 0);
    if (on_ring) {
        if (wanted & ~side->asked & EPOLLIN)
            ask(side, EPOLLIN);
        if (wanted & ~side->asked & EPOLLOUT)
            ask(side, EPOLLOUT);
        return;
    }
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

static void begin(int loop, struct side *side)
{
    if (on_ring) {
        ask(side, EPOLLIN);
        return;
    }
    side->watched = EPOLLIN;
    watch(loop, EPOLL_CTL_ADD, side->socket, EPOLLIN, side);
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
        session->client = (struct side){.socket = client, .session = session, .other = &session->server};
        session->server = (struct side){.socket = server, .session = session, .other = &session->client};
        begin(loop, &session->client);
        begin(loop, &session->server);
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

static void run_epoll(int loop)
{
    struct epoll_event events[EVENTS_MAX];
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

static void run_ring(void)
{
    uint64_t data;
    for (;;) {
        ring_enter(&ring, 1);
        while (ring_next(&ring, &data)) {
            struct side *side = (struct side *)(uintptr_t)(data & ~(uint64_t)1);
            uint32_t event = data & 1 ? EPOLLOUT : EPOLLIN;
            side->asked &= ~event;
            if (!side->session) {
                accept_all(-1, side);
                ask(side, EPOLLIN);
            } else if (!side->session->dead) {
                serve(-1, side, event);
            } else if (!is_asked(side->session)) {
                close_both(side->session);
            }
        }
        bury();
    }
}

int main(int count, char **arguments)
{
    if (count < 4) {
        fprintf(stderr, "usage: relay epoll|ring CHUNK_BYTES LISTEN_PORT:TARGET_PORT...\n");
        return 2;
    }
    on_ring = !strcmp(arguments[1], "ring");
    int loop = on_ring ? -1 : epoll_create1(EPOLL_CLOEXEC);
    if (on_ring)
        ring_open(&ring);
    scratch_bytes = (size_t)atol(arguments[2]);
    scratch = scratch_new();
    for (int index = 3; index < count; index++) {
        struct side *listener = calloc(1, sizeof *listener);
        int port;
        if (!listener || sscanf(arguments[index], "%d:%d", &port, &listener->target_port) != 2)
            fail("relay: LISTEN_PORT:TARGET_PORT");
        listener->socket = listen_on(port);
        begin(loop, listener);
    }
    if (on_ring)
        run_ring();
    run_epoll(loop);
}
