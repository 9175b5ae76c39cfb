/* The least that a program can do for a snapshot or a tap: what the kernel takes.
   Usage: ioctl DIRECTORY SUBVOLUME. Prints the nanoseconds that it took to make
   a snapshot, make it read-only, and delete it.
   Usage: ioctl BRIDGE. The same of a tap, made, attached to the bridge and up. */
#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <linux/sockios.h>
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

static int tap(const char *name)
{
    struct ifreq port = {.ifr_name = "bare"}, bridge = {0};
    int64_t start = now();
    int device = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    strncpy(bridge.ifr_name, name, IFNAMSIZ - 1);
    port.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL;
    if (ioctl(device, TUNSETIFF, &port) != 0 || ioctl(control, SIOCGIFINDEX, &port) != 0)
        return 2;
    bridge.ifr_ifindex = port.ifr_ifindex;
    if (ioctl(control, SIOCBRADDIF, &bridge) != 0)
        return 3;
    port.ifr_flags = IFF_UP | IFF_BROADCAST | IFF_MULTICAST;
    if (ioctl(control, SIOCSIFFLAGS, &port) != 0)
        return 4;
    close(control);
    printf("%lld\n", (long long)(now() - start));
    return 0;
}

int main(int argc, char **argv)
{
    struct btrfs_ioctl_vol_args_v2 make = {.name = "bare"};
    struct btrfs_ioctl_vol_args destroy = {.name = "bare"};
    uint64_t flags = BTRFS_SUBVOL_RDONLY;
    int64_t times[4];
    char bare[4096];
    int dir, root;

    if (argc == 2)
        return tap(argv[1]);
    if (argc != 3)
        return 1;
    snprintf(bare, sizeof bare, "%s/bare", argv[1]);
    times[0] = now();
    dir = directory(argv[1]);
    make.fd = directory(argv[2]);
    if (ioctl(dir, BTRFS_IOC_SNAP_CREATE_V2, &make) != 0)
        return 2;
    close(make.fd);
    close(dir);
    times[1] = now();
    root = directory(bare);
    if (ioctl(root, BTRFS_IOC_SUBVOL_SETFLAGS, &flags) != 0)
        return 3;
    close(root);
    times[2] = now();
    dir = directory(argv[1]);
    if (ioctl(dir, BTRFS_IOC_SNAP_DESTROY, &destroy) != 0)
        return 4;
    close(dir);
    times[3] = now();
    for (int i = 0; i < 3; i++)
        printf("%lld\n", (long long)(times[i + 1] - times[i]));
    return 0;
}
