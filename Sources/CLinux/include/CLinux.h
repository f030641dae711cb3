#pragma once
// Linux interfaces that Glibc's module leaves out.
#include <features.h> // before any kernel header, or its types clash with Glibc's module
#include <sys/capability.h>
