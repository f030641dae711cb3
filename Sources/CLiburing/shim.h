#pragma once
// liburing, with what its 2.3 header lacks.
#include <features.h> // before any kernel header, or its types clash with Glibc's module
#include <liburing.h>
