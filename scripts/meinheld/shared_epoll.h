/* Read before every file of meinheld when scripts/setup.sh builds it.
 *
 * meinheld 1.0.2 watches each connection with EPOLLEXCLUSIVE. The kernel refuses to change such a watch, so that
 * meinheld asks in vain twice after every answer (EPOLL_CTL_MOD, EINVAL; EPOLL_CTL_ADD, EEXIST), 1.2 us of 21, and
 * would wait for ever to become able to write. Without the flag the first call does what it should; what it was for,
 * waking one process for a new connection, costs the others an accept() that finds nothing.
 */
#ifdef __linux__
#include <sys/epoll.h>
#undef EPOLLEXCLUSIVE
#define EPOLLEXCLUSIVE 0
#endif
