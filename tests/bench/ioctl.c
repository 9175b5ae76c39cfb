/* The least that a program can do for a snapshot: what the kernel takes.
   Usage: ioctl DIRECTORY SUBVOLUME. Prints the nanoseconds that it took to make
   a snapshot, make it read-only, ask whether it is, and delete it. */
#include <fcntl.h>
#include <linux/btrfs.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int directory(const char *path)
{
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int main(int argc, char **argv)
{
    struct btrfs_ioctl_vol_args_v2 make = {.name = "bare"};
    struct btrfs_ioctl_vol_args destroy = {.name = "bare"};
    uint64_t flags = BTRFS_SUBVOL_RDONLY;
    int64_t times[5];
    int dir, root;

    if (argc != 3 || chdir(argv[1]) != 0)
        return 1;
    times[0] = now();
    dir = directory(".");
    make.fd = directory(argv[2]);
    if (ioctl(dir, BTRFS_IOC_SNAP_CREATE_V2, &make) != 0)
        return 2;
    close(make.fd);
    close(dir);
    times[1] = now();
    root = directory("bare");
    if (ioctl(root, BTRFS_IOC_SUBVOL_SETFLAGS, &flags) != 0)
        return 3;
    close(root);
    times[2] = now();
    root = directory("bare");
    if (ioctl(root, BTRFS_IOC_SUBVOL_GETFLAGS, &flags) != 0)
        return 4;
    close(root);
    times[3] = now();
    dir = directory(".");
    if (ioctl(dir, BTRFS_IOC_SNAP_DESTROY, &destroy) != 0)
        return 5;
    close(dir);
    times[4] = now();
    for (int i = 0; i < 4; i++)
        printf("%lld\n", (long long)(times[i + 1] - times[i]));
    return 0;
}
