//! Waiting for a guest: one poll over its requests, QEMU, QMP and signals.

use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::beside::{self, BesideEvent};
use super::idle::IdleTimer;
use super::limit::Limit;
use super::refusals::Refusals;
use super::{Ended, Guest, GuestPhase, Step, Why};
use crate::diag;
use crate::error::{Context as _, Result};
use crate::machine::{Event, ShutdownReason, VirtualMachine};
use crate::settings::Hold;
use crate::snapshot::sync;
use crate::status;
use crate::tftp::{self, Kind, Served, Upload};
use crate::trace;

/// A wake-up that is later than this means that the agent or the host was stopped
/// meanwhile. The whole wait is then not counted as the guest's time, because the
/// length of the stop is not known.
const LATE_WAKE_UP: Duration = Duration::from_secs(2);

/// The longest wait: the guest's bridge is examined after it. It bounds the time that is
/// lost by an unnoticed stop.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The events that can end a wait.
pub(super) enum Seen {
    Served(Served),
    Event(Event),
    /// A guest beside it has uploaded a file.
    Beside,
}

impl Guest<'_> {
    /// Waits for the first request of the guest, of whatever kind.
    pub fn await_request(
        &mut self,
        limit: Duration,
        beside: &mut [&mut Guest<'_>],
    ) -> Result<Step<()>> {
        self.wait(GuestPhase::Startup, limit, beside, |seen| match seen {
            Seen::Served(Served::Requested { .. }) => Some(()),
            _ => None,
        })
    }

    /// Serves the guest until it has uploaded a file by one of `names`.
    pub fn await_upload(
        &mut self,
        names: &[&str],
        limit: Duration,
        beside: &mut [&mut Guest<'_>],
    ) -> Result<Step<Upload>> {
        self.wait(GuestPhase::Work, limit, beside, |seen| match seen {
            Seen::Served(served) => served.upload(names),
            _ => None,
        })
    }

    /// Presses the power button until the guest has powered off.
    pub fn await_power_off(&mut self, limit: Duration) -> Result<Step<()>> {
        self.machine.power_down(Instant::now());
        self.wait(GuestPhase::Shutdown, limit, &mut [], |seen| match seen {
            Seen::Event(Event::Exited {
                reason: Some(ShutdownReason::GuestShutdown),
                ..
            }) => Some(()),
            _ => None,
        })
    }

    /// Waits in a phase until `reached`. The guests `beside` are served meanwhile; one of
    /// them that ends, ends the phase.
    pub(super) fn wait<T>(
        &mut self,
        phase: GuestPhase,
        limit: Duration,
        beside: &mut [&mut Guest<'_>],
        reached: impl Fn(&Seen) -> Option<T>,
    ) -> Result<Step<T>> {
        let begin = Instant::now();
        let start = Cell::new(begin);
        let mut time = Limit::new(begin, limit);
        let mut idle = IdleTimer::new(begin, self.idle_limit, self.profile.cpus);
        let mut next_look = begin + MAX_WAIT;
        let ended = |refusals: &Refusals, why| {
            Step::Ended(Ended {
                phase,
                limit,
                elapsed: start.get().elapsed(),
                why: refusals.reattribute(phase, why),
                refused: refusals.first().filter(|_| phase == GuestPhase::Startup),
            })
        };
        loop {
            let now = Instant::now();
            self.watch.tick(now);
            if self.watch.must_stop() {
                return Ok(ended(&self.refusals, Why::Stopped));
            }
            while let Some(event) = self.machine.handle(now) {
                trace!(4, "wait", "{event:?}");
                let seen = Seen::Event(event);
                if let Some(found) = reached(&seen) {
                    return Ok(Step::Done(found));
                }
                let Seen::Event(event) = seen else { continue };
                if matches!(event, Event::DiskFailed { full: true, .. }) && time.lacks_space(now) {
                    self.report_full_disk();
                } else if event == Event::Reset {
                    if let Some(why) = self.profile.reboots.reset(now) {
                        return Ok(ended(&self.refusals, why));
                    }
                    // Each boot has the time for a first request.
                    if phase == GuestPhase::Startup {
                        start.set(now);
                        time = Limit::new(now, limit);
                        self.watch.enter(status::Phase::Booting, Some(limit));
                    }
                } else if let Some(why) = Why::of(event) {
                    return Ok(ended(&self.refusals, why));
                }
            }
            match beside::serve(beside, now)? {
                BesideEvent::Nothing => {}
                BesideEvent::Uploaded => {
                    if let Some(found) = reached(&Seen::Beside) {
                        return Ok(Step::Done(found));
                    }
                }
                BesideEvent::Ended(index, why) => {
                    let why = Why::Beside(index, Box::new(why));
                    return Ok(ended(&self.refusals, why));
                }
            }
            if let Some(why) = self.make_room(phase, &mut time, &mut idle, beside)? {
                self.is_interrupted = matches!(why, Why::Interrupted(_));
                return Ok(ended(&self.refusals, why));
            }
            if time.is_to_resume(now) {
                self.machine.resume(now);
            }
            if time.is_over(now) {
                return Ok(ended(&self.refusals, Why::TimedOut));
            }
            if now >= next_look {
                next_look = now + MAX_WAIT;
                if !self.bridge.is_there() {
                    let why = format!("the bridge {} was deleted", self.bridge.name);
                    return Ok(ended(&self.refusals, Why::Surroundings(why)));
                }
            }
            let counters = self.server.counters();
            if self.machine.is_suspended() {
                idle.skip();
            } else if idle.is_due(now) {
                let usage = (self.machine.usage(now), counters.last_progress);
                if let Some(length) = idle.sample(now, usage) {
                    return Ok(ended(&self.refusals, Why::Idle(length)));
                }
            }
            let until = [
                self.machine.deadline(),
                self.watch.until(Some(time.next())),
                idle.next().filter(|_| !self.machine.is_suspended()),
            ]
            .into_iter()
            .flatten()
            .chain(
                self.displacement
                    .iter()
                    .filter_map(|d| d.control.deadline()),
            )
            .chain(beside::deadlines(beside))
            .fold(next_look, Instant::min);
            self.watch
                .transferred(counters.octets_sent + counters.octets_received);
            let served = {
                let mut others: Vec<BorrowedFd<'_>> = vec![self.watch.fd()];
                others.extend(self.machine.fds());
                let socket = self.displacement.as_ref().map(|d| d.control.socket());
                others.extend(socket.iter().flat_map(|socket| socket.fds()));
                others.extend(beside::fds(beside));
                self.server.serve(Some(until), &others)?
            };
            self.report_flood();
            let woke = Instant::now();
            if woke.saturating_duration_since(until) > LATE_WAKE_UP {
                time.was_away(woke - now);
                idle.skip();
            }
            self.report_served(&served);
            if let Some(found) = reached(&Seen::Served(served)) {
                return Ok(Step::Done(found));
            }
        }
    }

    /// Warns once that requests of the guest are dropped.
    pub(super) fn report_flood(&mut self) {
        let dropped = self.server.counters().requests_dropped;
        if dropped > 0 && !self.flood_reported {
            self.flood_reported = true;
            diag::warning(format_args!(
                "the guest in machine {} makes too many requests, which are dropped from now on",
                self.label
            ))
            .info(format_args!(
                "more than {} at once, and more than {} a second",
                super::REQUEST_RATE.burst,
                super::REQUEST_RATE.per_second
            ))
            .emit();
        }
    }

    /// Traces requests, and reports the failures of the host among them: the guest
    /// cannot report them.
    pub(super) fn report_served(&mut self, served: &Served) {
        if let Some(news) = self.refusals.note(served) {
            diag::warning(format_args!(
                "unable to store upload {} of machine {}: {}",
                news.name, self.label, news.reason
            ))
            .info(format_args!(
                "it is to go to {}: see df(1) and dmesg(1)",
                self.uploads.display()
            ))
            .emit();
        }
        match served {
            Served::Refused {
                request: Some((Kind::Put, _)),
                refusal,
                ..
            } if tftp::is_our_disks(refusal) => {}
            Served::Refused {
                request: Some((kind, name)),
                refusal,
                ..
            } if tftp::is_our_failure(refusal) => diag::warning(format_args!(
                "unable to serve {kind} of {name} to machine {}: {}",
                self.label, refusal.text
            ))
            .emit(),
            Served::Ready(_) | Served::Deadline => {}
            served => trace!(4, "wait", "{served:?}"),
        }
    }

    /// Warns that the host's disk is full; QEMU has suspended the guest. The sync frees
    /// the space of deleted files.
    fn report_full_disk(&self) {
        diag::warning(format_args!(
            "the host's disk is full under machine {}, which waits for space",
            self.label
        ))
        .emit();
        if let Err(error) = sync(&self.directory) {
            trace!(4, "report_full_disk", "{error}");
        }
    }

    /// The first refused request as a clause.
    pub fn first_refusal(&self) -> Option<String> {
        self.refusals.first()
    }

    /// An end for which the caller has the reason.
    pub fn ended(&self, phase: GuestPhase, limit: Duration, reason: String) -> Ended {
        Ended {
            phase,
            limit,
            elapsed: Duration::ZERO,
            why: Why::Invalid(reason),
            refused: None,
        }
    }

    /// Reports what happened, keeps evidence and state, then holds the guest.
    pub fn report_and_hold(&mut self, what: &str, ended: &Ended) -> Result<()> {
        let holds = self.report(what, ended);
        self.keep_all();
        match holds {
            true => self.hold(),
            false => Ok(()),
        }
    }

    /// Reports what happened, and begins the evidence, see [`Guest::keep_all`].
    /// Suspends the guest and returns true if it is to be held for inspection, see
    /// [`Guest::hold`].
    pub fn report(&mut self, what: &str, ended: &Ended) -> bool {
        if matches!(ended.why, Why::Stopped | Why::Interrupted(_)) {
            // The guest did not fail, so there is nothing to inspect.
            diag::info(format_args!("{what} for machine {}: {ended}", self.label)).emit();
            return false;
        }
        let gone = self.machine.exited().is_some();
        let holds = !gone && self.hold != Hold::For(Duration::ZERO);
        let tail = if holds { ", suspending" } else { "" };
        let mut record = diag::error(format_args!("{what} for machine {}{tail}", self.label))
            .info(ended)
            .info(format_args!(
                "the phase had lasted {} of {} seconds",
                ended.elapsed.as_secs(),
                ended.limit.as_secs()
            ));
        for line in self.refusals.lines() {
            record = record.info(line);
        }
        if ended.never_asked() && ended.refused.is_none() {
            record = record.info(format_args!(
                "if it has booted: it needs an address (a DHCP server on {}), and no firewall \
                 that drops its requests",
                self.bridge.name
            ));
        }
        if let Some(advice) = ended.advice() {
            record = record.info(advice);
        }
        if holds {
            self.machine.suspend(Instant::now());
        }
        for line in self.machine.evidence() {
            record = record.info(line);
        }
        if holds {
            for line in self.machine.ways_in() {
                record = record.info(line);
            }
            record = record.info(match self.hold {
                Hold::For(length) => format!(
                    "holding it for {} seconds (--hold); to end that: kill {}",
                    length.as_secs(),
                    self.machine.pid()
                ),
                Hold::Forever => format!("holding it until it ends: kill {}", self.machine.pid()),
            });
        }
        self.note_evidence(what, ended, record).emit();
        holds
    }

    /// Waits, without serving the guest, until the time of the hold is over, QEMU has
    /// ended, or the agent is told to stop.
    pub fn hold(&mut self) -> Result<()> {
        let length = match self.hold {
            Hold::For(length) => Some(length),
            Hold::Forever => None,
        };
        let deadline = length.map(|length| Instant::now() + length);
        self.watch.enter(status::Phase::Holding, length);
        self.attend(deadline, |machine| machine.exited().is_some())
    }

    /// Handles QEMU's messages, without serving the guest, until `deadline`, until `done`, or until
    /// the agent is told to stop.
    pub(super) fn attend(
        &mut self,
        deadline: Option<Instant>,
        done: impl Fn(&VirtualMachine) -> bool,
    ) -> Result<()> {
        loop {
            let now = Instant::now();
            self.watch.tick(now);
            while self.machine.handle(now).is_some() {}
            if done(&self.machine)
                || self.watch.must_stop()
                || deadline.is_some_and(|deadline| now >= deadline)
            {
                return Ok(());
            }
            let mut fds: Vec<BorrowedFd<'_>> = vec![self.watch.fd()];
            fds.extend(self.machine.fds());
            let until = [self.watch.until(deadline), self.machine.deadline()]
                .into_iter()
                .flatten()
                .min();
            let mut ready = vec![false; fds.len()];
            crate::sys::poll::readable(&fds, &mut ready, until)
                .context(|| format!("unable to wait for machine {}", self.label))?;
        }
    }
}
