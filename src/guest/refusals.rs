//! Requests that were refused: they often explain why a guest fails. If a disk of the
//! host failed an upload, the host is at fault.

use super::{GuestPhase, Why};
use crate::tftp::{Kind, Refusal, Served, is_our_disks};

/// The number of different requests that are kept for a report.
const MAX_REQUESTS: usize = 8;

/// The maximum length of a name in a report, in characters.
const MAX_NAME: usize = 100;

/// A request that was refused, perhaps several times.
#[derive(Debug)]
struct RefusedRequest {
    kind: Kind,
    name: String,
    count: u64,
    /// The reason of the last refusal.
    reason: String,
}

/// The refused requests of a guest.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// The first ones, at most [`MAX_REQUESTS`].
    requests: Vec<RefusedRequest>,
    /// The last one that has not been stored since: its name and the reason.
    last: Option<(String, String)>,
    /// The reason of the last report.
    reported: Option<String>,
}

/// A refused upload, for a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RefusedUpload {
    pub(super) name: String,
    pub(super) reason: String,
}

impl Refusals {
    /// Notes the outcome of a request. Returns a report for the first refusal of each
    /// reason: guests repeat their requests.
    pub(super) fn note(&mut self, served: &Served) -> Option<RefusedUpload> {
        self.count(served);
        if let Served::Uploaded { upload, .. } = served
            && self
                .last
                .as_ref()
                .is_some_and(|(last, _)| *last == upload.name)
        {
            self.last = None;
        }
        let (name, refusal) = refused_upload(served)?;
        let reason = refusal.text.clone().into_owned();
        self.last = Some((name.clone(), reason.clone()));
        if self.reported.as_ref() == Some(&reason) {
            return None;
        }
        self.reported = Some(reason.clone());
        Some(RefusedUpload { name, reason })
    }

    fn count(&mut self, served: &Served) {
        let Served::Refused {
            request: Some((kind, name)),
            refusal,
            ..
        } = served
        else {
            return;
        };
        let name: String = name.chars().take(MAX_NAME).collect();
        let reason = refusal.text.clone().into_owned();
        let mut requests = self.requests.iter_mut();
        if let Some(known) = requests.find(|known| known.kind == *kind && known.name == name) {
            known.count += 1;
            known.reason = reason;
        } else if self.requests.len() < MAX_REQUESTS {
            self.requests.push(RefusedRequest {
                kind: *kind,
                name,
                count: 1,
                reason,
            });
        }
    }

    /// A line for each refused request.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.requests.iter().map(|request| {
            let times = match request.count {
                1 => "once".to_owned(),
                count => format!("{count} times"),
            };
            let RefusedRequest {
                kind, name, reason, ..
            } = request;
            format!("{kind} of {name} was refused {times}: {reason}")
        })
    }

    /// The first refused request as a clause: the same in each attempt.
    pub(super) fn first(&self) -> Option<String> {
        let RefusedRequest {
            kind, name, reason, ..
        } = self.requests.first()?;
        Some(format!("{kind} of {name} was refused: {reason}"))
    }

    /// The reason of an end: `why`, unless a refused upload explains it.
    pub(super) fn reattribute(&self, phase: GuestPhase, why: Why) -> Why {
        match (&self.last, phase, &why) {
            // In the shutdown phase the wanted upload is stored already.
            (
                Some((_, reason)),
                GuestPhase::Startup | GuestPhase::Restore | GuestPhase::Work,
                Why::TimedOut | Why::Idle(_) | Why::Lost(_),
            ) => Why::Host(format!(
                "the host could not store what the guest uploaded ({reason})"
            )),
            _ => why,
        }
    }
}

/// The name of an upload that was refused because a disk of the host failed.
fn refused_upload(served: &Served) -> Option<(String, &Refusal)> {
    let (Served::Refused {
        request: Some((Kind::Put, name)),
        refusal,
        ..
    }
    | Served::Failed {
        kind: Kind::Put,
        name,
        refusal: Some(refusal),
        ..
    }) = served
    else {
        return None;
    };
    is_our_disks(refusal).then(|| (name.trim_start_matches('/').to_owned(), refusal))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{Ipv4Addr, SocketAddrV4};

    use nix::libc;

    use super::*;
    use crate::tftp::{ErrorCode, Upload, tree};

    const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);

    fn refused(name: &str, refusal: Refusal) -> Served {
        Served::Refused {
            peer: PEER,
            request: Some((Kind::Put, name.to_owned())),
            refusal,
        }
    }

    fn errno(errno: i32) -> Refusal {
        tree::refusal(&io::Error::from_raw_os_error(errno))
    }

    fn is_guest_fault(refusals: &Refusals) -> bool {
        refusals.reattribute(GuestPhase::Work, Why::TimedOut) == Why::TimedOut
    }

    #[test]
    fn an_upload_that_a_disk_of_the_host_failed_is_the_hosts_fault() {
        for reason in [libc::ENOSPC, libc::EDQUOT, libc::EIO, libc::EROFS] {
            let mut refusals = Refusals::default();
            assert!(refusals.note(&refused("/m", errno(reason))).is_some());
            for why in [Why::TimedOut, Why::Lost("the guest panicked".into())] {
                let why = refusals.reattribute(GuestPhase::Work, why);
                assert!(matches!(why, Why::Host(_)), "{reason}: {why:?}");
            }
            let why = refusals.reattribute(GuestPhase::Shutdown, Why::TimedOut);
            assert_eq!(why, Why::TimedOut);
            let why = refusals.reattribute(GuestPhase::Work, Why::Stopped);
            assert_eq!(why, Why::Stopped);
        }
        let mut refusals = Refusals::default();
        refusals.note(&Served::Failed {
            peer: PEER,
            kind: Kind::Put,
            name: "m".into(),
            reason: String::new(),
            refusal: Some(errno(libc::ENOSPC)),
        });
        let Why::Host(why) = refusals.reattribute(GuestPhase::Work, Why::TimedOut) else {
            panic!("the fault is the guest's");
        };
        assert!(why.ends_with("(disk full)"), "{why}");
    }

    #[test]
    fn a_refusal_for_another_reason_is_the_guests_fault() {
        let limit = Refusal::new(ErrorCode::DiskFull, "file larger than the limit");
        for refusal in [limit, errno(libc::EACCES), errno(libc::EMFILE)] {
            let mut refusals = Refusals::default();
            assert_eq!(refusals.note(&refused("m", refusal)), None);
            assert!(is_guest_fault(&refusals));
        }
        let mut refusals = Refusals::default();
        refusals.note(&Served::Refused {
            peer: PEER,
            request: Some((Kind::Get, "m".into())),
            refusal: errno(libc::EIO),
        });
        assert!(is_guest_fault(&refusals));
    }

    #[test]
    fn an_upload_that_was_stored_in_the_end_is_forgotten() {
        let uploaded = |name: &str| Served::Uploaded {
            peer: PEER,
            upload: Upload {
                name: name.to_owned(),
                path: name.into(),
            },
            size: 1,
        };
        let mut refusals = Refusals::default();
        refusals.note(&refused("/m", errno(libc::ENOSPC)));
        refusals.note(&uploaded("another"));
        assert!(!is_guest_fault(&refusals));
        refusals.note(&uploaded("m"));
        assert!(is_guest_fault(&refusals));
    }

    #[test]
    fn refused_requests_are_named_and_counted_within_bounds() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.first(), None);
        let missing = |name: &str| Served::Refused {
            peer: PEER,
            request: Some((Kind::Get, name.to_owned())),
            refusal: Refusal::new(ErrorCode::FileNotFound, "file not found"),
        };
        for _ in 0..280 {
            refusals.note(&missing("toolchain.tar"));
        }
        for i in 0..100 {
            refusals.note(&missing(&format!("{i}{}", "x".repeat(1000))));
        }
        let lines: Vec<String> = refusals.lines().collect();
        assert_eq!(
            lines[0],
            "GET of toolchain.tar was refused 280 times: file not found"
        );
        assert!(lines[1].ends_with("x was refused once: file not found"));
        assert_eq!(lines.len(), MAX_REQUESTS);
        assert!(lines.iter().all(|line| line.len() < 200));
        assert_eq!(
            refusals.first().unwrap(),
            "GET of toolchain.tar was refused: file not found"
        );
    }

    #[test]
    fn a_reason_is_reported_once() {
        let mut refusals = Refusals::default();
        let mut note = |name, reason| refusals.note(&refused(name, errno(reason))).is_some();
        assert!(note("m", libc::ENOSPC));
        assert!(!note("m", libc::ENOSPC));
        assert!(!note("n", libc::EDQUOT));
        assert!(note("m", libc::EIO));
    }
}
