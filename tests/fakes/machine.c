/* A machine whose clock steps and whose disk is slow or read-only, for the processes into which this is preloaded.
 *
 * What is so now, they all read from the file that SUITE_TEST_MACHINE names: three numbers of 8 bytes, by which
 * fakes/machine.py commands them. Only what goes through the C library's functions below sees it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct machine {
    int64_t ahead_seconds, slow_microseconds;
    uint64_t read_only; /* the number of a disk, st_dev; 0 for none */
};
static const struct machine sound;
static const volatile struct machine *machine = &sound;

__attribute__((constructor)) static void join(void) {
    const char *file = getenv("SUITE_TEST_MACHINE");
    int number = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
    if (number < 0) return;
    void *mapped = mmap(NULL, sizeof sound, PROT_READ, MAP_SHARED, number, 0);
    close(number);
    if (mapped != MAP_FAILED) machine = mapped;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int status = real(clock, now);
    if (!status && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += machine->ahead_seconds;
    return status;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *now, void *zone) {
    REAL(gettimeofday);
    int status = real(now, zone);
    if (!status) now->tv_sec += machine->ahead_seconds;
    return status;
}

/* Whether the disk of an open file takes nothing; where it is slow, after a while. */
static int refused(int number) {
    struct stat facts;
    if ((!machine->slow_microseconds && !machine->read_only) || fstat(number, &facts) || !S_ISREG(facts.st_mode)) return 0;
    if (machine->slow_microseconds) usleep(machine->slow_microseconds);
    if (facts.st_dev != machine->read_only) return 0;
    errno = EROFS;
    return 1;
}

ssize_t write(int number, const void *content, size_t count) {
    REAL(write);
    return refused(number) ? -1 : real(number, content, count);
}

ssize_t pwrite64(int number, const void *content, size_t count, off64_t place) {
    REAL(pwrite64);
    return refused(number) ? -1 : real(number, content, count, place);
}

ssize_t pwrite(int number, const void *content, size_t count, off_t place) {
    REAL(pwrite);
    return refused(number) ? -1 : real(number, content, count, place);
}

int fsync(int number) {
    REAL(fsync);
    return refused(number) ? -1 : real(number);
}

int fdatasync(int number) {
    REAL(fdatasync);
    return refused(number) ? -1 : real(number);
}
