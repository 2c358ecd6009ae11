/* Loopback sockets shared by the load client, the raw backend and the floor relay.
 *
 * Everything is IPv4 loopback, non-blocking and driven by one level-triggered epoll loop. Errors of set-up
 * end the process: a measurement with a half-made set-up is worse than none. */
#ifndef PERF_SOCKETS_H
#define PERF_SOCKETS_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static struct sockaddr_in loopback(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void no_delay(int socket)
{
    int on = 1;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static inline int listen_on(int port)
{
    int on = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = loopback(port);
    if (listener < 0)
        fail("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0)
        fail("bind");
    if (listen(listener, 4096) < 0)
        fail("listen");
    return listener;
}

/* Starts a connection; it is complete when the socket becomes writable. Returns -1 when even that fails. */
static inline int connect_to(int port)
{
    int connection = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = loopback(port);
    if (connection < 0)
        return -1;
    no_delay(connection);
    if (connect(connection, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) {
        close(connection);
        return -1;
    }
    return connection;
}

static inline void watch(int loop, int operation, int socket, uint32_t events, void *owner)
{
    struct epoll_event event = {.events = events, .data.ptr = owner};
    if (epoll_ctl(loop, operation, socket, &event) < 0)
        fail("epoll_ctl");
}

#endif
