/*
 * Traces what a process does to the files below one directory, for reconstruction of what a power cut would have left.
 *
 *   cc -shared -fPIC -O2 -o shim.so shim.c -ldl
 *   LD_PRELOAD=shim.so STRONGROOM_TRACE_ROOT=/dir STRONGROOM_TRACE_FILE=/elsewhere/trace  program
 *
 * Interposes on the C library, so it sees Rust's standard library and everything that calls libc, but no raw system calls. Not seen at all:
 * mmap writes, O_DIRECT alignment, symbolic links, holes punched by fallocate.
 *
 * A record is appended to the trace when its call has returned with success, under one lock, so that the order of records is the order in which
 * calls took effect. Syncs alone run outside the lock and name the length that the trace had when they began: what is recorded below that length
 * is durable once the record of the sync is there.
 *
 *   record  = kind (u32) | path bytes (u32) | other bytes (u32) | 0 (u32) | a (u64) | b (u64) | path | other     little-endian
 *   kind 1 create    path                        a = 1 for a directory
 *        2 write     path, other = content       a = offset
 *        3 truncate  path                        a = length
 *        4 rename    path, other = new path
 *        5 remove    path
 *        6 sync      path                        a = length of the trace when it began
 *        7 link      path, other = new path
 *
 * Paths are relative to the root; "" is the root itself.
 *
 * STRONGROOM_TRACE_FAIL=KIND:N:ERRNO makes call N of a kind (2 write, 3 truncate, 4 rename, 6 sync; counted from 1, below the root alone) and
 * all later ones of that kind fail with an error number, having done nothing. STRONGROOM_TRACE_IGNORE=fsync, =fdatasync or =all makes
 * those succeed without a record, as if the program had not called them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, WRITE = 2, TRUNCATE = 3, RENAME = 4, REMOVE = 5, SYNC = 6, LINK = 7, KINDS = 8 };

static char root[PATH_MAX];
static size_t root_len;
static int trace = -1;
static uint64_t trace_len;
static int fail_kind, fail_number, fail_errno, ignore_fsync, ignore_fdatasync, counts[KINDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void start(void) {
    const char *dir = getenv("STRONGROOM_TRACE_ROOT"), *file = getenv("STRONGROOM_TRACE_FILE");
    const char *fail = getenv("STRONGROOM_TRACE_FAIL"), *ignore = getenv("STRONGROOM_TRACE_IGNORE");
    if (!dir || !file || !realpath(dir, root)) return;
    root_len = strlen(root);
    if (fail) sscanf(fail, "%d:%d:%d", &fail_kind, &fail_number, &fail_errno);
    ignore_fsync = ignore && (!strcmp(ignore, "fsync") || !strcmp(ignore, "all"));
    ignore_fdatasync = ignore && (!strcmp(ignore, "fdatasync") || !strcmp(ignore, "all"));
    trace = (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    struct stat status;
    if (trace >= 0 && syscall(SYS_fstat, trace, &status) == 0) trace_len = (uint64_t)status.st_size;
}

/* The part of a path below the root, or NULL when it is not below. */
static const char *below(const char *path) {
    if (strncmp(path, root, root_len) != 0) return NULL;
    if (path[root_len] == 0) return path + root_len;
    return path[root_len] == '/' ? path + root_len + 1 : NULL;
}

static const char *below_fd(int fd, char *buffer) {
    char link[64];
    if (trace < 0 || fd == trace) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = syscall(SYS_readlink, link, buffer, PATH_MAX - 1);
    if (len <= 0) return NULL;
    buffer[len] = 0;
    return below(buffer);
}

/* Resolves the directory of a path that itself may not exist (any more). */
static const char *below_path(int dir, const char *path, char *buffer) {
    char whole[PATH_MAX * 2], at[PATH_MAX];
    if (trace < 0 || !path) return NULL;
    if (path[0] == '/' || dir == AT_FDCWD) {
        snprintf(whole, sizeof whole, "%s", path);
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t len = syscall(SYS_readlink, link, at, PATH_MAX - 1);
        if (len <= 0) return NULL;
        at[len] = 0;
        snprintf(whole, sizeof whole, "%s/%s", at, path);
    }
    size_t len = strlen(whole);
    while (len > 1 && whole[len - 1] == '/') whole[--len] = 0;
    char *slash = strrchr(whole, '/');
    const char *name = slash ? slash + 1 : whole;
    if (slash) *slash = 0;
    if (!realpath(slash ? (slash == whole ? "/" : whole) : ".", at)) return NULL;
    if (snprintf(buffer, PATH_MAX, "%s/%s", strcmp(at, "/") ? at : "", name) >= PATH_MAX) return NULL;
    return below(buffer);
}

static void put(int kind, const char *path, const void *other, size_t other_len, uint64_t a) {
    struct { uint32_t kind, path, other, zero; uint64_t a, b; } header = {
        (uint32_t)kind, (uint32_t)strlen(path), (uint32_t)other_len, 0, a, 0 };
    struct iovec parts[3] = {
        { &header, sizeof header }, { (void *)path, strlen(path) }, { (void *)other, other_len } };
    size_t whole = sizeof header + strlen(path) + other_len;
    ssize_t wrote = syscall(SYS_writev, trace, parts, 3);
    if (wrote != (ssize_t)whole) {
        static const char message[] = "the trace cannot be written\n";
        syscall(SYS_write, 2, message, sizeof message - 1);
        _exit(97);
    }
    trace_len += whole;
}

/* Whether a call shall fail; counts it. */
static int fails(int kind) {
    counts[kind]++;
    if (kind != fail_kind || counts[kind] < fail_number) return 0;
    errno = fail_errno;
    return 1;
}

static ssize_t traced_write(int fd, const void *bytes, size_t len, off64_t offset, int positioned) {
    char buffer[PATH_MAX];
    const char *path = below_fd(fd, buffer);
    if (!path)
        return positioned ? REAL(pwrite64)(fd, bytes, len, offset) : REAL(write)(fd, bytes, len);
    pthread_mutex_lock(&lock);
    ssize_t done = -1;
    if (!fails(WRITE)) {
        if (!positioned) offset = (fcntl(fd, F_GETFL) & O_APPEND) ? lseek64(fd, 0, SEEK_END) : lseek64(fd, 0, SEEK_CUR);
        done = positioned ? REAL(pwrite64)(fd, bytes, len, offset) : REAL(write)(fd, bytes, len);
        int error = errno;
        if (done > 0) put(WRITE, path, bytes, (size_t)done, (uint64_t)offset);
        errno = error;
    }
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int fd, const void *bytes, size_t len) { return traced_write(fd, bytes, len, 0, 0); }
ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at) { return traced_write(fd, bytes, len, at, 1); }
ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at) { return traced_write(fd, bytes, len, at, 1); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    char buffer[PATH_MAX];
    if (!below_fd(fd, buffer)) return REAL(writev)(fd, parts, count);
    /* A short write is allowed; the caller goes on with the rest. */
    for (int i = 0; i < count; i++)
        if (parts[i].iov_len) return write(fd, parts[i].iov_base, parts[i].iov_len);
    return 0;
}

static int traced_truncate(int fd, off64_t length) {
    char buffer[PATH_MAX];
    const char *path = below_fd(fd, buffer);
    if (!path) return REAL(ftruncate64)(fd, length);
    pthread_mutex_lock(&lock);
    int done = fails(TRUNCATE) ? -1 : REAL(ftruncate64)(fd, length);
    int error = errno;
    if (done == 0) put(TRUNCATE, path, NULL, 0, (uint64_t)length);
    errno = error;
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int fd, off_t length) { return traced_truncate(fd, length); }
int ftruncate64(int fd, off64_t length) { return traced_truncate(fd, length); }

static int traced_sync(int fd, int data) {
    char buffer[PATH_MAX];
    const char *path = below_fd(fd, buffer);
    if (!path) return data ? REAL(fdatasync)(fd) : REAL(fsync)(fd);
    pthread_mutex_lock(&lock);
    uint64_t began = trace_len;
    int failed = fails(SYNC);
    int error = errno;
    pthread_mutex_unlock(&lock);
    if (failed) {
        errno = error;
        return -1;
    }
    int done = data ? REAL(fdatasync)(fd) : REAL(fsync)(fd);
    error = errno;
    if (done == 0 && !(data ? ignore_fdatasync : ignore_fsync)) {
        pthread_mutex_lock(&lock);
        put(SYNC, path, NULL, 0, began);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return done;
}

int fsync(int fd) { return traced_sync(fd, 0); }
int fdatasync(int fd) { return traced_sync(fd, 1); }

static int traced_open(int dir, const char *name, int flags, mode_t mode) {
    char buffer[PATH_MAX];
    const char *path = (flags & (O_CREAT | O_TRUNC)) ? below_path(dir, name, buffer) : NULL;
    if (!path) return REAL(openat64)(dir, name, flags, mode);
    pthread_mutex_lock(&lock);
    int existed = syscall(SYS_faccessat, AT_FDCWD, buffer, F_OK) == 0;
    int fd = REAL(openat64)(dir, name, flags, mode);
    int error = errno;
    if (fd >= 0 && !existed) put(CREATE, path, NULL, 0, 0);
    if (fd >= 0 && existed && (flags & O_TRUNC)) put(TRUNCATE, path, NULL, 0, 0);
    errno = error;
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags)                                                                                                    \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode = va_arg(rest, mode_t);                                                                                   \
        va_end(rest);                                                                                                  \
    }

int open(const char *name, int flags, ...) { MODE(flags) return traced_open(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return traced_open(AT_FDCWD, name, flags, mode); }
int openat(int dir, const char *name, int flags, ...) { MODE(flags) return traced_open(dir, name, flags, mode); }
int openat64(int dir, const char *name, int flags, ...) { MODE(flags) return traced_open(dir, name, flags, mode); }

int mkdir(const char *name, mode_t mode) {
    char buffer[PATH_MAX];
    const char *path = below_path(AT_FDCWD, name, buffer);
    if (!path) return REAL(mkdir)(name, mode);
    pthread_mutex_lock(&lock);
    int done = REAL(mkdir)(name, mode);
    int error = errno;
    if (done == 0) put(CREATE, path, NULL, 0, 1);
    errno = error;
    pthread_mutex_unlock(&lock);
    return done;
}

static int traced_remove(int dir, const char *name, int flags) {
    char buffer[PATH_MAX];
    const char *path = below_path(dir, name, buffer);
    if (!path) return REAL(unlinkat)(dir, name, flags);
    pthread_mutex_lock(&lock);
    int done = REAL(unlinkat)(dir, name, flags);
    int error = errno;
    if (done == 0) put(REMOVE, path, NULL, 0, 0);
    errno = error;
    pthread_mutex_unlock(&lock);
    return done;
}

int unlink(const char *name) { return traced_remove(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return traced_remove(AT_FDCWD, name, AT_REMOVEDIR); }
int unlinkat(int dir, const char *name, int flags) { return traced_remove(dir, name, flags); }

static int traced_rename(int from_dir, const char *from, int to_dir, const char *to) {
    char from_buffer[PATH_MAX], to_buffer[PATH_MAX];
    const char *old = below_path(from_dir, from, from_buffer), *new = below_path(to_dir, to, to_buffer);
    if (!old || !new) return REAL(renameat)(from_dir, from, to_dir, to);
    pthread_mutex_lock(&lock);
    int done = fails(RENAME) ? -1 : REAL(renameat)(from_dir, from, to_dir, to);
    int error = errno;
    if (done == 0) put(RENAME, old, new, strlen(new), 0);
    errno = error;
    pthread_mutex_unlock(&lock);
    return done;
}

int rename(const char *from, const char *to) { return traced_rename(AT_FDCWD, from, AT_FDCWD, to); }
int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    return traced_rename(from_dir, from, to_dir, to);
}

static int traced_link(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    char from_buffer[PATH_MAX], to_buffer[PATH_MAX];
    const char *old = below_path(from_dir, from, from_buffer), *new = below_path(to_dir, to, to_buffer);
    if (!old || !new) return REAL(linkat)(from_dir, from, to_dir, to, flags);
    pthread_mutex_lock(&lock);
    int done = fails(LINK) ? -1 : REAL(linkat)(from_dir, from, to_dir, to, flags);
    int error = errno;
    if (done == 0) put(LINK, old, new, strlen(new), 0);
    errno = error;
    pthread_mutex_unlock(&lock);
    return done;
}

int link(const char *from, const char *to) { return traced_link(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    return traced_link(from_dir, from, to_dir, to, flags);
}
