//! Guests beside another one: the auxiliary machines of its task, which are served
//! during its waits.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::wait::Seen;
use super::{Guest, GuestPhase, Step, Why};
use crate::error::Result;
use crate::machine::Event;
use crate::tftp::{Served, Upload};
use crate::trace;

/// An event beside a guest.
pub(super) enum BesideEvent {
    /// Nothing of interest.
    Nothing,
    /// One of them has uploaded a file.
    Uploaded,
    /// The one of this number has ended or failed.
    Ended(usize, Why),
}

/// Serves what has come in for guests beside another one.
pub(super) fn serve(beside: &mut [&mut Guest<'_>], now: Instant) -> Result<BesideEvent> {
    let mut event = BesideEvent::Nothing;
    for (index, guest) in beside.iter_mut().enumerate() {
        let known = guest.uploaded.len();
        if let Some(why) = guest.serve_beside(now)? {
            return Ok(BesideEvent::Ended(index, why));
        }
        if guest.uploaded.len() > known {
            event = BesideEvent::Uploaded;
        }
    }
    Ok(event)
}

/// The descriptors that a poll waits for.
pub(super) fn fds<'g>(beside: &'g [&mut Guest<'_>]) -> impl Iterator<Item = BorrowedFd<'g>> {
    let of = |guest: &'g &mut Guest<'_>| guest.machine.fds().into_iter().chain([guest.server.fd()]);
    beside.iter().flat_map(of)
}

/// When one of them has something to do.
pub(super) fn deadlines(beside: &[&mut Guest<'_>]) -> impl Iterator<Item = Instant> {
    let of = |guest: &&mut Guest<'_>| [guest.machine.deadline(), guest.server.due()];
    beside.iter().flat_map(of).flatten()
}

impl Guest<'_> {
    fn serve_beside(&mut self, now: Instant) -> Result<Option<Why>> {
        while let Some(event) = self.machine.handle(now) {
            trace!(4, "serve_beside", "{event:?}");
            let why = match event {
                // Only the guest of the build waits for space.
                Event::DiskFailed { full: true, .. } => {
                    let why = "the host's disk is full under the guest";
                    Some(Why::Host(why.to_owned()))
                }
                event => Why::of(event),
            };
            if why.is_some() {
                return Ok(why);
            }
        }
        loop {
            match self.server.serve(Some(now), &[])? {
                Served::Deadline | Served::Ready(_) => break,
                served => {
                    self.report_served(&served);
                    if let Served::Uploaded { upload, .. } = served {
                        self.uploaded.push(upload);
                    }
                }
            }
        }
        self.report_flood();
        Ok(None)
    }

    /// Waits until this guest or one of those beside it has uploaded a file by one of
    /// `names`, which [`Guest::take_upload`] returns.
    pub fn await_environment(
        &mut self,
        names: &[&str],
        limit: Duration,
        beside: &mut [&mut Guest<'_>],
    ) -> Result<Step<()>> {
        let step = self.wait(GuestPhase::Environment, limit, beside, |seen| match seen {
            Seen::Served(served) => served.upload(names).map(Some),
            Seen::Beside => Some(None),
            Seen::Event(_) => None,
        })?;
        Ok(match step {
            Step::Done(upload) => {
                self.uploaded.extend(upload);
                Step::Done(())
            }
            Step::Ended(ended) => Step::Ended(ended),
        })
    }

    /// Takes an upload by one of `names`, if there is one.
    pub fn take_upload(&mut self, names: &[&str]) -> Option<Upload> {
        let is_wanted = |upload: &Upload| names.contains(&upload.name.as_str());
        let index = self.uploaded.iter().position(is_wanted)?;
        Some(self.uploaded.swap_remove(index))
    }
}
