#pragma once
// liburing as Swift sees it: its inline functions import as they are; macros that cast or shift do not, and neither do
// constants newer than liburing 2.3 (Debian 12).
#include <features.h> // before any kernel header, or its types clash with Glibc's module
#include <liburing.h>

// Linux 6.7: IORING_OP_READ_MULTISHOT, as its number in enum io_uring_op
static const unsigned char tund_op_read_multishot = 49;

static const unsigned char tund_sqe_fixed_file = IOSQE_FIXED_FILE;
static const unsigned char tund_sqe_buffer_select = IOSQE_BUFFER_SELECT;
static const unsigned int tund_cqe_buffer_shift = IORING_CQE_BUFFER_SHIFT;

// Debian 12's liburing.so does not export io_uring_enable_rings.
#include <sys/syscall.h>
#include <unistd.h>
static inline long tund_enable_rings(struct io_uring *ring) {
    return syscall(__NR_io_uring_register, ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, (void *)0, 0);
}
