/* Kills or signals its process at the file operation of a chosen number: LD_PRELOAD this.

   Counted are the operations that change files or folders under KILL_AT_ROOT, in all threads
   and child processes, whichever library asks for them: Python, HDF5, SQLite and TensorStore
   all come through libc. The count lies in the file KILL_AT_COUNT, which is shared; at number
   KILL_AT (0: never) the process gets SIGKILL before the operation, or, where KILL_AT_TORN is
   set and it is a write, after the first half of its bytes. Where KILL_AT_SIGNAL names another
   signal it gets that one, and the operation is done. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *root;
static size_t root_length;
static long chosen;
static int torn;
static int sent = SIGKILL;
static long *count;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("KILL_AT_COUNT"), *number = getenv("KILL_AT");
  root = getenv("KILL_AT_ROOT");
  if (!path || !root) return;
  int file = open(path, O_RDWR | O_CREAT, 0600);
  if (file < 0) return;
  long *shared = MAP_FAILED;
  if (ftruncate(file, sizeof(long)) == 0)
    shared = mmap(NULL, sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (shared == MAP_FAILED) return;
  root_length = strlen(root);
  chosen = number ? atol(number) : 0;
  torn = getenv("KILL_AT_TORN") != NULL;
  if (getenv("KILL_AT_SIGNAL")) sent = atoi(getenv("KILL_AT_SIGNAL"));
  count = shared; /* last: from here on operations count */
}

static int under_root(const char *path) {
  return strncmp(path, root, root_length) == 0;
}

/* Not on the stack: Python's handlers write to a socket, on 8 kB of their own. */
static __thread char whole[4096];

static int path_counts(int folder, const char *path) {
  if (!count || !path) return 0;
  if (path[0] == '/') return under_root(path);
  if (folder == AT_FDCWD) {
    if (!getcwd(whole, sizeof whole)) return 0;
    return under_root(whole);
  }
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
  ssize_t n = readlink(link, whole, sizeof whole - 1);
  if (n < 0) return 0;
  whole[n] = 0;
  return under_root(whole);
}

static int file_counts(int file) {
  char link[64];
  if (!count) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t n = readlink(link, whole, sizeof whole - 1);
  if (n < 0) return 0;
  whole[n] = 0;
  return under_root(whole);
}

static int is_chosen(void) {
  return __atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST) == chosen;
}

static void end(void) {
  kill(getpid(), sent);
  while (sent == SIGKILL) pause();
}

#define REAL(name) \
  static __typeof__(name) *real; \
  if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define PATHS(result, name, parameters, counts, arguments) \
  result name parameters { \
    REAL(name); \
    if ((counts) && is_chosen()) end(); \
    return real arguments; \
  }

PATHS(int, rename, (const char *a, const char *b), path_counts(AT_FDCWD, b), (a, b))
PATHS(int, renameat, (int d, const char *a, int e, const char *b), path_counts(e, b), (d, a, e, b))
PATHS(int, renameat2, (int d, const char *a, int e, const char *b, unsigned f), path_counts(e, b),
      (d, a, e, b, f))
PATHS(int, unlink, (const char *a), path_counts(AT_FDCWD, a), (a))
PATHS(int, unlinkat, (int d, const char *a, int f), path_counts(d, a), (d, a, f))
PATHS(int, rmdir, (const char *a), path_counts(AT_FDCWD, a), (a))
PATHS(int, mkdir, (const char *a, mode_t m), path_counts(AT_FDCWD, a), (a, m))
PATHS(int, mkdirat, (int d, const char *a, mode_t m), path_counts(d, a), (d, a, m))
PATHS(int, symlink, (const char *a, const char *b), path_counts(AT_FDCWD, b), (a, b))
PATHS(int, link, (const char *a, const char *b), path_counts(AT_FDCWD, b), (a, b))
PATHS(int, truncate, (const char *a, off_t n), path_counts(AT_FDCWD, a), (a, n))
PATHS(int, truncate64, (const char *a, off64_t n), path_counts(AT_FDCWD, a), (a, n))
PATHS(int, ftruncate, (int f, off_t n), file_counts(f), (f, n))
PATHS(int, ftruncate64, (int f, off64_t n), file_counts(f), (f, n))
PATHS(int, fsync, (int f), file_counts(f), (f))
PATHS(int, fdatasync, (int f), file_counts(f), (f))

/* Opening counts where it makes or empties a file. */
#define OPENS(name) \
  int name(const char *path, int flags, ...) { \
    REAL(name); \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
    va_end(rest); \
    if (flags & (O_CREAT | O_TRUNC) && path_counts(AT_FDCWD, path) && is_chosen()) end(); \
    return real(path, flags, mode); \
  }
OPENS(open)
OPENS(open64)
#define OPENS_AT(name) \
  int name(int folder, const char *path, int flags, ...) { \
    REAL(name); \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
    va_end(rest); \
    if (flags & (O_CREAT | O_TRUNC) && path_counts(folder, path) && is_chosen()) end(); \
    return real(folder, path, flags, mode); \
  }
OPENS_AT(openat)
OPENS_AT(openat64)

#define WRITES(result, name, parameters, arguments, half) \
  result name parameters { \
    REAL(name); \
    if (file_counts(file) && is_chosen()) { \
      if (torn && sent == SIGKILL && real half < 0) end(); \
      end(); \
    } \
    return real arguments; \
  }
WRITES(ssize_t, write, (int file, const void *b, size_t n), (file, b, n), (file, b, n / 2))
WRITES(ssize_t, pwrite, (int file, const void *b, size_t n, off_t at), (file, b, n, at),
       (file, b, n / 2, at))
WRITES(ssize_t, pwrite64, (int file, const void *b, size_t n, off64_t at), (file, b, n, at),
       (file, b, n / 2, at))
WRITES(ssize_t, writev, (int file, const struct iovec *b, int n), (file, b, n), (file, b, n / 2))
WRITES(ssize_t, pwritev, (int file, const struct iovec *b, int n, off_t at), (file, b, n, at),
       (file, b, n / 2, at))
