//! A network of one's own: a bridge, and guests on taps of it.
//!
//! ```text
//! test's namespace                         guest's namespace
//!   br1 ── tap (Tap::open) ◄── pump ──► eth0, a tap: the kernel's own stack
//! ```
//!
//! The pump does what QEMU does: it moves frames between the tap and the
//! guest's card. So a guest is the real network stack of a real kernel, ready
//! in milliseconds.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use bbot_agent::sys::net::{Control, InterfaceName};
use bbot_agent::sys::tap;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};

use super::{PATIENCE, run};

/// Gives the calling thread network and mounts of its own. The caller is a
/// thread that ends with the test.
pub fn unshare_all() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).unwrap();
    // Else it shows the interfaces of the namespace that it was mounted in.
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).unwrap();
    let control = Control::open().unwrap();
    control.set_up(&InterfaceName::new("lo").unwrap()).unwrap();
}

/// The bridge's address in tests, and the network of the guests (/24).
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 123, 1);

/// Makes the bridge `name` with [`GATEWAY`] as its address, up.
pub fn bridge(name: &str) {
    run(&format!("ip link add {name} type bridge"));
    run(&format!("ip addr add {GATEWAY}/24 dev {name}"));
    run(&format!("ip link set {name} up"));
}

/// A guest: a network namespace whose card is a tap of the test's namespace.
#[derive(Debug)]
pub struct Guest {
    namespace: File,
    stop: Option<OwnedFd>,
    pump: Option<JoinHandle<()>>,
}

impl Guest {
    /// Plugs a guest into `tap`. It has the address `192.168.123.<host>` and
    /// the hardware address `mac`.
    #[must_use]
    pub fn new(tap: BorrowedFd<'_>, host: u8, mac: [u8; 6]) -> Guest {
        let tap = tap.try_clone_to_owned().unwrap();
        let (stopped, stop) = nix::unistd::pipe().unwrap();
        let (sender, receiver) = mpsc::channel();
        let pump = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let name = InterfaceName::new("eth0").unwrap();
            let card = tap::create(&name).unwrap();
            Control::open().unwrap().set_mac(&name, mac).unwrap();
            run("ip link set lo up");
            run(&format!("ip addr add 192.168.123.{host}/24 dev eth0"));
            run("ip link set eth0 up");
            run(&format!("ip route add default via {GATEWAY}"));
            sender
                .send(File::open("/proc/thread-self/ns/net").unwrap())
                .unwrap();
            move_frames(&tap, &card, &stopped);
        });
        Guest {
            namespace: receiver.recv_timeout(PATIENCE).unwrap(),
            stop: Some(stop),
            pump: Some(pump),
        }
    }

    /// Runs `inside` on a thread in the guest's namespace.
    pub fn inside<R: Send>(&self, inside: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&self.namespace, CloneFlags::CLONE_NEWNET).unwrap();
                    inside()
                })
                .join()
                .unwrap()
        })
    }

    /// A socket of the guest, bound to `port` (0: any), that waits for at most
    /// [`PATIENCE`].
    #[must_use]
    pub fn udp(&self, port: u16) -> UdpSocket {
        let socket = self.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(pump) = self.pump.take() {
            let _ = pump.join();
        }
    }
}

/// Moves frames both ways until the other end of `stopped` is closed. Both taps
/// put the same virtio header before a frame, so it is passed on as it is.
fn move_frames(a: &OwnedFd, b: &OwnedFd, stopped: &OwnedFd) {
    let mut frame = vec![0; 128 * 1024];
    loop {
        let mut set = [a, b, stopped].map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
        poll(&mut set, PollTimeout::NONE).unwrap();
        if set[2].any().unwrap() {
            return;
        }
        for (i, (from, to)) in [(a, b), (b, a)].into_iter().enumerate() {
            // A tap that is down or has gone is not the pump's business.
            if set[i].any().unwrap()
                && let Ok(length) = nix::unistd::read(from, &mut frame)
            {
                let _ = nix::unistd::write(to, &frame[..length]);
            }
        }
    }
}
