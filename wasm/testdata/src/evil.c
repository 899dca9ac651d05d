// Does what it should not, one thing per run: evil WHAT [N].
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int attempt(const char *path, int flags) {
  int fd = open(path, flags, 0644);
  if (fd < 0) {
    printf("%s: %s\n", path, strerror(errno));
    return 0;
  }
  char buf[64];
  ssize_t n = read(fd, buf, sizeof buf);
  printf("%s: opened, %zd bytes\n", path, n);
  return 1;
}

static int escape(void) {
  int got = 0;
  got |= attempt("/etc/passwd", O_RDONLY);
  got |= attempt("etc/passwd", O_RDONLY);
  got |= attempt("../../../../../../../../etc/passwd", O_RDONLY);
  got |= attempt("/in/../../../../etc/passwd", O_RDONLY);
  got |= attempt("/in/dir/../../../../../../etc/passwd", O_RDONLY);
  got |= attempt("/in/absolute", O_RDONLY);
  got |= attempt("/in/relative", O_RDONLY);
  got |= attempt("/in/loop", O_RDONLY);
  got |= attempt("/in/root/etc/passwd", O_RDONLY);
  symlink("/etc/passwd", "/tmp/mine");
  got |= attempt("/tmp/mine", O_RDONLY);
  symlink("../../../../../../etc", "/tmp/up");
  got |= attempt("/tmp/up/passwd", O_RDONLY);
  got |= attempt("/proc/self/environ", O_RDONLY);
  got |= attempt("/dev/mem", O_RDONLY);
  return got;
}

static int truncation(void) {
  int got = 0;
  got |= attempt("/in/a.txt", O_WRONLY);
  got |= attempt("/in/a.txt", O_RDWR);
  got |= attempt("/in/a.txt", O_WRONLY | O_TRUNC);
  got |= attempt("/in/a.txt", O_RDONLY | O_TRUNC);
  got |= attempt("/in/a.txt", O_WRONLY | O_APPEND);
  got |= attempt("/in/new.txt", O_WRONLY | O_CREAT);
  got |= attempt("/new.txt", O_WRONLY | O_CREAT);
  if (truncate("/in/a.txt", 0) == 0) got = 1;
  printf("truncate: %s\n", strerror(errno));
  int fd = open("/in/a.txt", O_RDONLY);
  if (ftruncate(fd, 0) == 0) got = 1;
  printf("ftruncate: %s\n", strerror(errno));
  if (write(fd, "x", 1) == 1) got = 1;
  printf("write: %s\n", strerror(errno));
  if (unlink("/in/a.txt") == 0) got = 1;
  printf("unlink: %s\n", strerror(errno));
  if (rename("/in/a.txt", "/tmp/a.txt") == 0) got = 1;
  printf("rename: %s\n", strerror(errno));
  if (mkdir("/in/sub", 0755) == 0) got = 1;
  printf("mkdir: %s\n", strerror(errno));
  if (rmdir("/out") == 0) got = 1;
  printf("rmdir: %s\n", strerror(errno));
  return got;
}

static volatile int sink;
static char *volatile keep;

__attribute__((noinline)) static int recurse(int n) {
  if (n == -1) return 1;
  int r = recurse(n + 1) + recurse(n + 2);
  sink = r;
  return r;
}

int main(int argc, char **argv) {
  if (argc < 2) return 99;
  const char *what = argv[1];
  long long n = argc > 2 ? atoll(argv[2]) : 0;
  if (!strcmp(what, "escape")) return escape();
  if (!strcmp(what, "truncate")) return truncation();
  if (!strcmp(what, "files")) {
    for (long long i = 0; i < n; i++) {
      char path[64];
      snprintf(path, sizeof path, "/out/%lld", i);
      int fd = open(path, O_WRONLY | O_CREAT, 0644);
      if (fd < 0) return 1;
      close(fd);
    }
    return 0;
  }
  if (!strcmp(what, "write") || !strcmp(what, "print")) {
    static char buf[1 << 16];
    memset(buf, 'x', sizeof buf);
    int fd = what[0] == 'p' ? 1 : open("/out/big", O_WRONLY | O_CREAT, 0644);
    for (long long i = 0; i < n; i += sizeof buf)
      if (write(fd, buf, sizeof buf) != sizeof buf) return 1;
    return 0;
  }
  if (!strcmp(what, "sparse")) {
    int fd = open("/out/sparse", O_WRONLY | O_CREAT, 0644);
    return ftruncate(fd, n) ? 1 : 0;
  }
  if (!strcmp(what, "loop"))
    for (;;) sink++;
  if (!strcmp(what, "memory")) {
    for (long long have = 0; have < n; have += 1 << 20) {
      char *p = malloc(1 << 20);
      if (!p) {
        fprintf(stderr, "no more after %lld bytes\n", have);
        return 3;
      }
      keep = p;
      keep[0] = 1;
    }
    return 0;
  }
  if (!strcmp(what, "grow-ignored")) {
    keep = malloc(n);
    printf("%s\n", keep ? "got it" : "refused");
    return 0;
  }
  if (!strcmp(what, "recurse")) return recurse(0);
  if (!strcmp(what, "hostcalls")) {
    struct timespec t;
    for (;;) clock_gettime(CLOCK_MONOTONIC, &t);
  }
  if (!strcmp(what, "talk")) {
    printf("I am here\n");
    fflush(stdout);
    for (;;) {
      struct timespec t;
      clock_gettime(CLOCK_MONOTONIC, &t);
    }
  }
  if (!strcmp(what, "turns")) { // two files written in turns
    static char buf[1 << 16];
    int a = open("/out/a", O_WRONLY | O_CREAT, 0644), b = open("/out/b", O_WRONLY | O_CREAT, 0644);
    for (long long i = 0; i < n; i++) {
      memset(buf, (char)i, sizeof buf);
      if (write(a, buf, sizeof buf) < 0 || write(b, buf, sizeof buf) < 0) return 1;
    }
    return 0;
  }
  if (!strcmp(what, "deep")) {
    int fd = open("/out", O_RDONLY | O_DIRECTORY);
    for (long long i = 0; i < n; i++) {
      if (mkdirat(fd, "directory", 0755)) return 1;
      int next = openat(fd, "directory", O_RDONLY | O_DIRECTORY);
      if (next < 0) return 2;
      close(fd);
      fd = next;
    }
    return 0;
  }
  if (!strcmp(what, "calls")) {
    struct timespec t;
    for (long long i = 0; i < n; i++) clock_gettime(CLOCK_MONOTONIC, &t);
    return 0;
  }
  if (!strcmp(what, "abort")) abort();
  if (!strcmp(what, "unreachable")) __builtin_trap();
  if (!strcmp(what, "wild")) {
    *(volatile int *)0xfffffff0u = 1;
    return 0;
  }
  if (!strcmp(what, "sleep")) {
    struct timespec t = {n, 0};
    nanosleep(&t, 0);
    printf("slept\n");
    return 0;
  }
  if (!strcmp(what, "fds")) {
    for (int i = 0; i < n; i++)
      if (open("/in/a.txt", O_RDONLY) < 0) {
        printf("%d: %s\n", i, strerror(errno));
        return 0;
      }
    return 1;
  }
  return 98;
}
