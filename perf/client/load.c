/* The load client for what wrk cannot do: connections opened with a recorded first message.
 *
 *   load connect PORT FILE CONNECTIONS SECONDS   open, send FILE, read 1 KiB and the end, close; again
 *   load down    PORT FILE CONNECTIONS SECONDS   send FILE, then read until the time is over
 *   load up      PORT FILE CONNECTIONS SECONDS   send FILE, then write until the time is over
 *   load hold    PORT FILE CONNECTIONS SECONDS   open all, await each answer, print, stay until stdin ends
 *
 * One JSON object on stdout: operations, bytes, errors, seconds and, for connect, percentiles in microseconds. */
#include "sockets.h"
#include <poll.h>
#include <time.h>

enum mode { CONNECT, DOWN, UP, HOLD };
enum { ANSWER_BYTES = 1024, BULK_BYTES = 256 * 1024, EVENTS_MAX = 256, OPENING_MAX = 64, LATENCIES_MAX = 1 << 22 };

struct connection {
    int socket;
    int opened, answered;
    size_t received;
    uint64_t begun;
};

static enum mode mode;
static int loop, port;
static char scratch[BULK_BYTES];
static char first[65536];
static size_t first_bytes;
static uint64_t operations, bytes, errors;
static int opening;
static uint32_t *latencies;
static size_t latency_count;

static uint64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void open_one(struct connection *connection)
{
    *connection = (struct connection){.socket = connect_to(port), .begun = now_ns()};
    if (connection->socket < 0)
        fail("connect");
    opening++;
    watch(loop, EPOLL_CTL_ADD, connection->socket, EPOLLOUT, connection);
}

static void close_one(struct connection *connection)
{
    if (!connection->answered)
        opening--;
    close(connection->socket);
    connection->socket = -1;
}

/* A connection ended: count it, and open the next where the mode is about opening. */
static void ended(struct connection *connection, int failed)
{
    close_one(connection);
    if (mode == CONNECT && !failed && connection->received == ANSWER_BYTES) {
        operations++;
        if (latency_count < LATENCIES_MAX)
            latencies[latency_count++] = (uint32_t)((now_ns() - connection->begun) / 1000);
    } else {
        errors++;
    }
    if (mode == CONNECT)
        open_one(connection);
}

static void send_first(struct connection *connection)
{
    connection->opened = 1;
    if (send(connection->socket, first, first_bytes, MSG_NOSIGNAL) != (ssize_t)first_bytes)
        ended(connection, 1);
    else
        watch(loop, EPOLL_CTL_MOD, connection->socket, mode == UP ? EPOLLIN | EPOLLOUT : EPOLLIN, connection);
}

static void receive(struct connection *connection)
{
    ssize_t count = recv(connection->socket, scratch, sizeof scratch, 0);
    if (count <= 0) {
        if (count == 0 || errno != EAGAIN)
            ended(connection, count < 0);
        return;
    }
    connection->received += (size_t)count;
    if (mode == DOWN)
        bytes += (uint64_t)count;
    if (!connection->answered) {
        connection->answered = 1;
        opening--;
        operations += mode == HOLD;
    }
}

static void transmit(struct connection *connection)
{
    ssize_t count = send(connection->socket, scratch, sizeof scratch, MSG_NOSIGNAL);
    if (count > 0)
        bytes += (uint64_t)count;
    else if (errno != EAGAIN)
        ended(connection, 1);
}

static void serve(struct connection *connection, uint32_t events)
{
    if (connection->socket < 0)
        return;
    if (!connection->opened)
        send_first(connection);
    else if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
        receive(connection);
    else if (events & EPOLLOUT)
        transmit(connection);
}

static int step(int timeout_ms)
{
    struct epoll_event events[EVENTS_MAX];
    int ready = epoll_wait(loop, events, EVENTS_MAX, timeout_ms);
    for (int index = 0; index < ready; index++)
        serve(events[index].data.ptr, events[index].events);
    return ready;
}

static int ascending(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static uint32_t percentile(unsigned percent)
{
    return latency_count ? latencies[(latency_count - 1) * percent / 100] : 0;
}

static void report(uint64_t begun)
{
    double seconds = (double)(now_ns() - begun) / 1e9;
    qsort(latencies, latency_count, sizeof *latencies, ascending);
    printf("{\"operations\":%llu,\"bytes\":%llu,\"errors\":%llu,\"seconds\":%.6f,\"p50_us\":%u,\"p99_us\":%u}\n",
           (unsigned long long)operations, (unsigned long long)bytes, (unsigned long long)errors, seconds,
           percentile(50), percentile(99));
    fflush(stdout);
}

static void run_for(struct connection *connections, int count, double seconds)
{
    uint64_t deadline = now_ns() + (uint64_t)(seconds * 1e9);
    for (int index = 0; index < count; index++)
        open_one(&connections[index]);
    while (now_ns() < deadline)
        step(20);
}

/* Opens in small batches, so that no backlog overflows, within the given time. */
static void open_all(struct connection *connections, int count, double seconds)
{
    uint64_t deadline = now_ns() + (uint64_t)(seconds * 1e9);
    int next = 0;
    while ((next < count || opening > 0) && now_ns() < deadline) {
        while (next < count && opening < OPENING_MAX)
            open_one(&connections[next++]);
        step(20);
    }
}

/* Stays until stdin ends, serving events, so that connections closed by the proxy are seen and counted. */
static void hold_until_stdin_ends(void)
{
    struct pollfd input[2] = {{.fd = 0, .events = POLLIN}, {.fd = loop, .events = POLLIN}};
    while (poll(input, 2, -1) >= 0 && input[0].revents == 0)
        step(0);
}

static enum mode mode_of(const char *name)
{
    static const char *const names[] = {"connect", "down", "up", "hold"};
    for (int candidate = CONNECT; candidate <= HOLD; candidate++)
        if (strcmp(name, names[candidate]) == 0)
            return (enum mode)candidate;
    fprintf(stderr, "load: no mode %s\n", name);
    exit(2);
}

int main(int count, char **arguments)
{
    if (count != 6) {
        fprintf(stderr, "usage: load connect|down|up|hold PORT FILE CONNECTIONS SECONDS\n");
        return 2;
    }
    FILE *file = fopen(arguments[3], "rb");
    if (!file)
        fail(arguments[3]);
    first_bytes = fread(first, 1, sizeof first, file);
    mode = mode_of(arguments[1]);
    port = atoi(arguments[2]);
    loop = epoll_create1(EPOLL_CLOEXEC);
    int connection_count = atoi(arguments[4]);
    double seconds = atof(arguments[5]);
    struct connection *connections = calloc((size_t)connection_count, sizeof *connections);
    latencies = malloc(sizeof *latencies * LATENCIES_MAX);
    if (!connections || !latencies)
        fail("malloc");
    uint64_t begun = now_ns();
    if (mode == HOLD)
        open_all(connections, connection_count, seconds);
    else
        run_for(connections, connection_count, seconds);
    report(begun);
    if (mode == HOLD)
        hold_until_stdin_ends();
    return 0;
}
