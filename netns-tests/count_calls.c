/* Counts, per thread, the calls of the allocator and of Swift's reference counting, for test_allocations.py.
 *
 * Preloaded into tund. The allocator's functions are interposed. Swift's are in the program itself (it is linked
 * statically), where a preloaded library cannot take their place; but the runtime has hooks for instruments: pointers such
 * as _swift_retain, which it goes through once a flag is set. Both are found by their names in the program's symbol table.
 *
 * The counts lie in the file $COUNT_CALLS, an array of struct slot, one per thread; the test reads it while tund runs. */
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SLOTS = 256 };
struct slot {
    _Atomic long thread; /* 0: free */
    long allocations;    /* malloc, calloc, realloc, memalign, free */
    long references;     /* retains, releases, object allocations */
};
static struct slot *slots;
static __thread struct slot *mine __attribute__((tls_model("initial-exec")));

static struct slot *slot(void) {
    static struct slot nowhere;
    if (mine) return mine;
    if (!slots) return &nowhere;
    for (int i = 0; i < SLOTS; i++) {
        long free_slot = 0;
        if (atomic_compare_exchange_strong(&slots[i].thread, &free_slot, gettid())) return mine = &slots[i];
    }
    return &nowhere;
}

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);
void *malloc(size_t size) { slot()->allocations++; return __libc_malloc(size); }
void *calloc(size_t count, size_t size) { slot()->allocations++; return __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { slot()->allocations++; return __libc_realloc(old, size); }
void *memalign(size_t alignment, size_t size) { slot()->allocations++; return __libc_memalign(alignment, size); }
void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }
int posix_memalign(void **result, size_t alignment, size_t size) { return (*result = memalign(alignment, size)) ? 0 : 12; }
void free(void *old) { slot()->allocations++; __libc_free(old); }

static void *(*retain)(void *), *(*retain_n)(void *, unsigned), *(*allocate)(void *, size_t, size_t);
static void (*release)(void *), (*release_n)(void *, unsigned);
/* The runtime strips tag bits before it comes here, also from what is no counted object: a short string kept in place of a
 * pointer, whose letters never look like an address, or a literal in the program itself, whose objects are all immortal. */
static size_t program_begin, program_end;
static int is_object(void *pointer) {
    size_t address = (size_t)pointer, top = address >> 40;
    return (top == 0x55 || top == 0x56 || top == 0x7f) && !(address >= program_begin && address < program_end);
}
static void *counting_retain(void *object) {
    slot()->references++;
    return is_object(object) ? retain(object) : object;
}
static void *counting_retain_n(void *object, unsigned n) {
    slot()->references++;
    return is_object(object) ? retain_n(object, n) : object;
}
static void counting_release(void *object) {
    slot()->references++;
    if (is_object(object)) release(object);
}
static void counting_release_n(void *object, unsigned n) {
    slot()->references++;
    if (is_object(object)) release_n(object, n);
}
static void *counting_allocate(void *type, size_t size, size_t mask) { slot()->references++; return allocate(type, size, mask); }

static int find_program(struct dl_phdr_info *info, size_t size, void *base) {
    *(ElfW(Addr) *)base = program_begin = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        size_t end = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
        if (info->dlpi_phdr[i].p_type == PT_LOAD && end > program_end) program_end = end;
    }
    return 1; /* the first one is the program */
}

static void hook_swift(void) {
    int file = open("/proc/self/exe", O_RDONLY);
    struct stat status;
    if (file < 0 || fstat(file, &status) < 0) return;
    const char *image = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    if (image == MAP_FAILED) return;
    ElfW(Addr) base = 0;
    dl_iterate_phdr(find_program, &base);
    const ElfW(Ehdr) *header = (const void *)image;
    const ElfW(Shdr) *sections = (const void *)(image + header->e_shoff);
    struct { const char *name; void **original; void *counting; } hooks[] = {
        {"_swift_retain", (void **)&retain, counting_retain},
        {"_swift_retain_n", (void **)&retain_n, counting_retain_n},
        {"_swift_release", (void **)&release, counting_release},
        {"_swift_release_n", (void **)&release_n, counting_release_n},
        {"_swift_allocObject", (void **)&allocate, counting_allocate},
    };
    int found = 0;
    char *flag = NULL;
    for (int s = 0; s < header->e_shnum; s++) {
        if (sections[s].sh_type != SHT_SYMTAB) continue;
        const ElfW(Sym) *symbols = (const void *)(image + sections[s].sh_offset);
        const char *names = image + sections[sections[s].sh_link].sh_offset;
        for (size_t i = 0; i < sections[s].sh_size / sizeof *symbols; i++) {
            const char *name = names + symbols[i].st_name;
            char *address = (char *)base + symbols[i].st_value;
            if (ELF64_ST_TYPE(symbols[i].st_info) != STT_OBJECT) continue;
            if (!strncmp(name, "_swift_enableSwizzlingOfAllocationAndRefCounting", 48)) flag = address;
            for (size_t h = 0; h < sizeof hooks / sizeof *hooks; h++) {
                if (strcmp(name, hooks[h].name)) continue;
                *hooks[h].original = *(void **)address;
                /* Read-only once the program is relocated. */
                mprotect((void *)((size_t)address & ~4095ul), 8192, PROT_READ | PROT_WRITE);
                *(void **)address = hooks[h].counting;
                found++;
            }
        }
    }
    munmap((void *)image, status.st_size);
    if (flag && found == 5) *flag = 1;
    else fprintf(stderr, "count_calls: this Swift runtime has other hooks (%d of 5 found)\n", found);
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("COUNT_CALLS");
    int file = path ? open(path, O_RDWR) : -1;
    if (file < 0) return; /* one of the programs that start tund */
    void *memory = mmap(NULL, SLOTS * sizeof *slots, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED) return;
    slots = memory;
    char program[256] = "";
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length > 5 && !strcmp(program + length - 5, "/tund")) hook_swift();
}
