// Uses scratch files in every way there is and checks what comes back.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECK(x) \
  do { \
    if (!(x)) { \
      fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #x, strerror(errno)); \
      exit(1); \
    } \
  } while (0)

static char a[200000], b[200000];

int main(void) {
  for (int i = 0; i < (int)sizeof a; i++) a[i] = i * 7 + i / 251;
  CHECK(mkdir("/tmp/d", 0755) == 0);
  CHECK(mkdir("/tmp/d", 0755) == -1 && errno == EEXIST);
  int fd = open("/tmp/d/f", O_RDWR | O_CREAT | O_EXCL, 0644);
  CHECK(fd >= 0);
  CHECK(open("/tmp/d/f", O_RDWR | O_CREAT | O_EXCL, 0644) == -1 && errno == EEXIST);
  CHECK(write(fd, a, sizeof a) == sizeof a);
  CHECK(pwrite(fd, "hello", 5, 300000) == 5);
  struct stat s;
  CHECK(fstat(fd, &s) == 0 && s.st_size == 300005);
  CHECK(pread(fd, b, sizeof b, 0) == sizeof b && !memcmp(a, b, sizeof a));
  CHECK(pread(fd, b, 100000, 200000) == 100000);
  for (int i = 0; i < 100000; i++) CHECK(b[i] == 0);
  CHECK(ftruncate(fd, 100) == 0 && ftruncate(fd, 1000) == 0);
  CHECK(pread(fd, b, 1000, 0) == 1000 && !memcmp(a, b, 100) && b[100] == 0 && b[999] == 0);
  CHECK(lseek(fd, 0, SEEK_END) == 1000 && lseek(fd, -10, SEEK_CUR) == 990);
  CHECK(lseek(fd, -1, SEEK_SET) == -1 && errno == EINVAL);
  int ap = open("/tmp/d/f", O_WRONLY | O_APPEND);
  CHECK(write(ap, "end", 3) == 3 && fstat(ap, &s) == 0 && s.st_size == 1003);
  CHECK(read(ap, b, 1) == -1 && errno == EBADF);
  CHECK(rename("/tmp/d/f", "/tmp/g") == 0 && stat("/tmp/d/f", &s) == -1 && errno == ENOENT);
  CHECK(link("/tmp/g", "/tmp/h") == 0 && stat("/tmp/h", &s) == 0 && s.st_nlink == 2);
  CHECK(unlink("/tmp/g") == 0 && unlink("/tmp/h") == 0);
  CHECK(pread(fd, b, 3, 1000) == 3 && !memcmp(b, "end", 3));
  CHECK(close(fd) == 0 && close(ap) == 0 && close(ap) == -1 && errno == EBADF);
  CHECK(mkdir("/tmp/d/e", 0755) == 0 && rmdir("/tmp/d") == -1 && errno == ENOTEMPTY);
  CHECK(rename("/tmp/d", "/tmp/d/e/x") == -1 && errno == EINVAL);
  CHECK(rename("/tmp/d/e", "/tmp/e") == 0 && rmdir("/tmp/d") == 0);
  CHECK(symlink("../tmp/e", "/tmp/link") == 0);
  CHECK(readlink("/tmp/link", b, sizeof b) == 8 && !memcmp(b, "../tmp/e", 8));
  fd = open("/tmp/link/deep", O_WRONLY | O_CREAT, 0644);
  CHECK(fd >= 0 && write(fd, "deep", 4) == 4 && close(fd) == 0);
  CHECK(stat("/tmp/e/deep", &s) == 0 && s.st_size == 4);
  CHECK(unlink("/tmp/e") == -1 && rmdir("/tmp/link") == -1 && errno == ENOTDIR);
  CHECK(open("/tmp/e/deep/x", O_RDONLY) == -1 && errno == ENOTDIR);
  CHECK(open("/tmp/e", O_WRONLY | O_TRUNC) == -1 && errno == EISDIR);
  for (int i = 0; i < 50; i++) {
    char path[64];
    snprintf(path, sizeof path, "/tmp/e/%02d", 49 - i);
    fd = open(path, O_WRONLY | O_CREAT, 0644);
    CHECK(fd >= 0 && close(fd) == 0);
  }
  DIR *d = opendir("/tmp/e");
  CHECK(d);
  int n = 0;
  for (struct dirent *e; (e = readdir(d));) {
    char want[8];
    if (e->d_name[0] == '.' || !strcmp(e->d_name, "deep")) continue;
    snprintf(want, sizeof want, "%02d", n++);
    CHECK(!strcmp(e->d_name, want));
  }
  CHECK(n == 50 && closedir(d) == 0);
  CHECK(mkdir("/out/tree", 0755) == 0 && mkdir("/out/tree/empty", 0755) == 0);
  CHECK(symlink("file", "/out/tree/link") == 0);
  fd = open("/out/tree/file", O_WRONLY | O_CREAT, 0644);
  CHECK(fd >= 0 && write(fd, a, sizeof a) == sizeof a && close(fd) == 0);
  fd = open("/out/sparse", O_WRONLY | O_CREAT, 0644);
  CHECK(fd >= 0 && pwrite(fd, "x", 1, 1000000) == 1 && ftruncate(fd, 2000000) == 0 && close(fd) == 0);
  printf("ok\n");
  return 0;
}
