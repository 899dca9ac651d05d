// Prints everything that differs between machines and runs elsewhere.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void now(const char *what, clockid_t id) {
  struct timespec t;
  clock_gettime(id, &t);
  printf("%s %lld.%09ld\n", what, (long long)t.tv_sec, t.tv_nsec);
}

static void list(const char *path) {
  DIR *d = opendir(path);
  if (!d) {
    printf("%s cannot be listed\n", path);
    return;
  }
  for (struct dirent *e; (e = readdir(d));) {
    struct stat s;
    char full[4096];
    snprintf(full, sizeof full, "%s/%s", path, e->d_name);
    if (lstat(full, &s)) memset(&s, 0, sizeof s);
    printf("%s ino=%llu size=%lld mtime=%lld mode=%o\n", full, (unsigned long long)s.st_ino,
           (long long)s.st_size, (long long)s.st_mtim.tv_sec, (unsigned)s.st_mode);
  }
  closedir(d);
}

int main(int argc, char **argv) {
  now("realtime", CLOCK_REALTIME);
  now("monotonic", CLOCK_MONOTONIC);
  unsigned char r[16];
  if (getentropy(r, sizeof r)) return 1;
  for (int i = 0; i < 16; i++) printf("%02x", r[i]);
  printf("\n%p %p\n", malloc(100), (void *)&r);
  for (char **e = environ; *e; e++) printf("%s\n", *e);
  struct timespec nap = {3600, 5};
  nanosleep(&nap, 0);
  now("after an hour", CLOCK_REALTIME);
  for (int i = 1; i < argc; i++) list(argv[i]);
  FILE *f = fopen("/out/report.txt", "w");
  if (f) {
    fprintf(f, "%u\n", (unsigned)r[0]);
    fclose(f);
  }
  return 0;
}
