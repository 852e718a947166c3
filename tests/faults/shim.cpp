// Loaded before the C library: the calls by which files are written fail as the environment says.
//   SHIM_PATH   part of the paths it is about     SHIM_CALLS  names of calls: ,write,open,
//   SHIM_ERRNO  the error                         SHIM_LOG    takes a line per failure
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

template <typename F> static F real(F, const char *name) { return (F)dlsym(RTLD_NEXT, name); }

static bool fails(const char *call, const char *path) {
    const char *part = getenv("SHIM_PATH"), *calls = getenv("SHIM_CALLS");
    if (!part || !calls || !path || !strstr(path, part)) return false;
    char word[32];
    snprintf(word, sizeof word, ",%s,", call);
    if (!strstr(calls, word)) return false;
    if (const char *log = getenv("SHIM_LOG")) {
        int file = real(open, "open")(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
        char line[64];
        int length = snprintf(line, sizeof line, "%s\n", call);
        if (real(write, "write")(file, line, length)) close(file);
    }
    errno = atoi(getenv("SHIM_ERRNO"));
    return true;
}

static bool fails(const char *call, int file) {
    if (!getenv("SHIM_PATH")) return false;
    char link[32], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return false;
    path[length] = 0;
    return fails(call, path);
}

#define BY_FILE(type, name, parameters, ...) \
    extern "C" type name parameters { \
        return fails(#name, file) ? -1 : real(name, #name)(__VA_ARGS__); \
    }
BY_FILE(ssize_t, write, (int file, const void *data, size_t size), file, data, size)
BY_FILE(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), file, data, size, at)
BY_FILE(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), file, data, size, at)
BY_FILE(ssize_t, writev, (int file, const struct iovec *parts, int num), file, parts, num)
BY_FILE(int, ftruncate, (int file, off_t size), file, size)
BY_FILE(int, ftruncate64, (int file, off64_t size), file, size)
BY_FILE(int, fsync, (int file), file)

extern "C" int rename(const char *from, const char *to) {
    return fails("rename", to) ? -1 : real(rename, "rename")(from, to);
}

#define OPENING(name) \
    extern "C" int name(const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0; \
        va_end(rest); \
        bool writes = (flags & O_ACCMODE) != O_RDONLY; \
        return writes && fails("open", path) ? -1 : real(name, #name)(path, flags, mode); \
    }
OPENING(open)
OPENING(open64)
