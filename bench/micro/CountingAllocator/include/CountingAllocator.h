#pragma once
// The program's allocator, which counts its calls: definitions in the program itself take the C library's place.
unsigned long allocation_count(void);
