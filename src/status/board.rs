//! The board that the agent writes its state on, and who reads it from there.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::file;
use super::metrics;
use super::notify::Notify;
use super::state::{Outcome, State, Subject};
use super::{Idle, Moment, Phase};
use crate::diag;

/// How long a phase that is usually over at once goes unmentioned.
const FLEETING: Duration = Duration::from_secs(1);

/// How often the elapsed time in `STATUS=` is brought up to date.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// How long a guest may take to end, and what it used to be cleaned up.
const GUEST_ENDS: Duration = Duration::from_secs(60);

/// How often the progress line moves.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Where the state is published.
#[derive(Debug, Default)]
pub struct StatusSettings {
    /// The name of the toolchain, for readers.
    pub toolchain: String,
    /// The number of the instance, for readers.
    pub instance: u16,
    /// Directory for the state file, `<run-dir>/<toolchain>-<instance>`; it
    /// must exist.
    pub dir: Option<PathBuf>,
    /// The Prometheus text file.
    pub metrics: Option<PathBuf>,
    /// systemd.
    pub notify: Option<Notify>,
    /// Whether standard error is a terminal that shall have a progress line.
    pub terminal: bool,
}

/// The state and its publication. Every method is given the time.
#[derive(Debug)]
pub struct Board {
    config: StatusSettings,
    started: Moment,
    state: State,
    /// The state that was published last.
    shown: Option<State>,
    /// When the present state is to be published, if it is not yet.
    publish_at: Option<Instant>,
    bytes: u64,
    /// When each of these was last brought up to date.
    status_at: Instant,
    progress_at: Instant,
    ping_at: Instant,
}

impl Board {
    /// A board without a reader.
    pub fn new(now: Moment) -> Board {
        Board {
            config: StatusSettings::default(),
            started: now,
            state: State::new(now),
            shown: None,
            publish_at: None,
            bytes: 0,
            status_at: now.instant,
            progress_at: now.instant,
            ping_at: now.instant,
        }
    }

    /// From now on the state is published, beginning with the present one.
    pub fn configure(&mut self, config: StatusSettings, now: Moment) {
        self.config = config;
        self.ping(now.instant);
        self.publish(now);
    }

    /// A phase begins. Entering the present phase again restarts its time, except for
    /// [`Phase::Idle`] with the same reason.
    pub fn enter(&mut self, phase: Phase, detail: &str, limit: Option<Duration>, now: Moment) {
        let again = |state: &State| state.phase == phase && matches!(phase, Phase::Idle(_));
        let since = match &self.shown {
            Some(shown) if again(shown) => shown.since,
            _ if again(&self.state) => self.state.since,
            _ => now,
        };
        self.state.phase = phase;
        detail.clone_into(&mut self.state.detail);
        self.state.since = since;
        self.state.limit = limit;
        self.bytes = 0;
        if phase.is_fleeting() {
            // It is published if it takes longer than that.
            let at = self.publish_at.unwrap_or(now.instant + FLEETING);
            self.publish_at = Some(at);
        } else {
            self.publish(now);
        }
        self.progress(now.instant);
    }

    /// Sets the subject of this phase and the next ones.
    pub fn subject(&mut self, subject: Subject, now: Moment) {
        if self.state.subject != subject {
            self.state.subject = subject;
            self.publish_unless_fleeting(now);
        }
    }

    /// A task has ended.
    pub fn finished(&mut self, outcome: Outcome, now: Moment) {
        self.state.remember(outcome);
        self.publish_unless_fleeting(now);
    }

    /// The task under way is the last.
    pub fn draining(&mut self, now: Moment) {
        if !self.state.draining {
            self.state.draining = true;
            self.publish(now);
        }
    }

    /// Tells systemd that the agent is about to exit, and asks for time if a guest has
    /// to end first.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
        if self.state.phase.has_guest() {
            let text = format!("EXTEND_TIMEOUT_USEC={}", GUEST_ENDS.as_micros());
            self.tell(&text);
        }
    }

    /// Bytes that the phase has transferred so far, for the progress line.
    pub fn transferred(&mut self, bytes: u64) {
        self.bytes = bytes;
    }

    /// Tells systemd something at once.
    pub fn tell(&self, message: &str) {
        if let Some(notify) = &self.config.notify {
            notify.send(message);
        }
    }

    /// When [`Board::tick`] has something to do, if nothing happens before.
    pub fn due(&self) -> Option<Instant> {
        let moving = self.is_moving();
        let notified = self.config.notify.is_some();
        [
            self.publish_at,
            (moving && notified).then(|| self.status_at + STATUS_EVERY),
            (moving && self.config.terminal).then(|| self.progress_at + PROGRESS_EVERY),
            self.watchdog().map(|every| self.ping_at + every / 2),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Moment) {
        if let Some(every) = self.watchdog()
            && now.instant >= self.ping_at + every / 2
        {
            self.ping(now.instant);
        }
        if self.publish_at.is_some_and(|at| now.instant >= at) {
            self.publish(now);
        }
        if !self.is_moving() {
            return;
        }
        if now.instant >= self.status_at + STATUS_EVERY {
            self.tell_status(now.instant);
        }
        if now.instant >= self.progress_at + PROGRESS_EVERY {
            self.progress(now.instant);
        }
    }

    /// Whether what is shown changes with time alone.
    fn is_moving(&self) -> bool {
        !matches!(self.state.phase, Phase::Idle(_) | Phase::Stopped)
    }

    fn watchdog(&self) -> Option<Duration> {
        self.config.notify.as_ref()?.watchdog
    }

    fn ping(&mut self, now: Instant) {
        if self.watchdog().is_some() {
            self.tell("WATCHDOG=1");
        }
        self.ping_at = now;
    }

    fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.state.since.instant)
    }

    fn tell_status(&mut self, now: Instant) {
        self.status_at = now;
        if self.config.notify.is_some() {
            let line = self.state.line(self.elapsed(now));
            // A newline would begin another assignment.
            let line: String = line.chars().filter(|c| !c.is_control()).collect();
            self.tell(&format!("STATUS={line}"));
        }
    }

    fn progress(&mut self, now: Instant) {
        self.progress_at = now;
        if !self.config.terminal || self.state.phase == Phase::Stopped {
            return;
        }
        let (subject, mut rest) = self.state.parts(self.elapsed(now));
        if self.bytes > 0 {
            rest.push_str(", ");
            rest.push_str(&super::bytes(self.bytes));
        }
        diag::progress(&subject, &rest);
    }

    fn publish_unless_fleeting(&mut self, now: Moment) {
        if self.state.phase.is_fleeting() {
            let at = self.publish_at.unwrap_or(now.instant + FLEETING);
            self.publish_at = Some(at);
        } else {
            self.publish(now);
        }
    }

    /// Publishes the state if it differs from what was published last.
    fn publish(&mut self, now: Moment) {
        self.publish_at = None;
        let shown = self.shown.as_ref();
        if shown.is_some_and(|shown| shown.looks_like(&self.state)) {
            return;
        }
        let before = shown.map(|shown| shown.phase);
        self.shown = Some(self.state.clone());
        if before != Some(self.state.phase)
            && let Phase::Idle(reason) = self.state.phase
        {
            self.say(reason);
        }
        self.tell_status(now.instant);
        if let Some(path) = self.config.dir.as_ref().map(|dir| dir.join(file::NAME)) {
            file::publish(
                &path,
                &format!(
                    "{}\n",
                    file::document(&self.config, self.started, &self.state)
                ),
                "status",
            );
        }
        if let Some(path) = self.config.metrics.clone() {
            let labels = format!(
                "toolchain=\"{}\",instance=\"{}\"",
                metrics::label(&self.config.toolchain),
                self.config.instance
            );
            let (started, now) = (self.started.wall.as_secs(), now.wall.as_secs());
            let text = metrics::text(&self.state, &labels, started, now);
            file::publish(&path, &text, "metrics");
        }
    }

    /// Reports the reason to be idle. Without systemd it is a trace, since an error was
    /// reported already.
    fn say(&self, reason: Idle) {
        let line = self.state.line(Duration::ZERO);
        if self.config.notify.is_some() && reason != Idle::Drained {
            diag::info(line).emit();
        } else {
            crate::trace!(2, "publish", "{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::json::Value;

    /// A clock that is moved by hand.
    fn at(start: Instant, seconds: u64) -> Moment {
        let passed = Duration::from_secs(seconds);
        Moment {
            instant: start + passed,
            monotonic: Duration::from_secs(1000) + passed,
            wall: Duration::from_secs(1_700_000_000) + passed,
        }
    }

    struct Scene {
        start: Instant,
        board: Board,
        dir: PathBuf,
    }

    impl Scene {
        fn new(name: &str) -> Scene {
            let start = Instant::now();
            let name = format!("bbot-agent-board-{name}-{}", std::process::id());
            let dir = std::env::temp_dir().join(name);
            fs::create_dir_all(&dir).unwrap();
            let mut board = Board::new(at(start, 0));
            let config = StatusSettings {
                toolchain: "default".to_owned(),
                instance: 1,
                dir: Some(dir.clone()),
                metrics: Some(dir.join("agent.prom")),
                ..StatusSettings::default()
            };
            board.configure(config, at(start, 0));
            Scene { start, board, dir }
        }

        fn enter(&mut self, phase: Phase, seconds: u64) {
            self.board.enter(phase, "", None, at(self.start, seconds));
        }

        fn status(&self) -> Value {
            super::super::read(&self.dir.join(file::NAME))
                .unwrap()
                .unwrap()
        }

        fn word(&self, name: &str) -> String {
            let status = self.status();
            let value = status.get(name).and_then(Value::as_str);
            value.unwrap_or("null").to_owned()
        }

        fn since(&self) -> u64 {
            let status = self.status();
            status.get("since_monotonic").unwrap().as_u64().unwrap() - 1000
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }

    #[test]
    fn an_idle_turn_writes_nothing() {
        let mut scene = Scene::new("idle");
        scene.enter(Phase::Idle(Idle::NoTask), 1);
        let file = scene.dir.join(file::NAME);
        fs::remove_file(&file).unwrap();
        for turn in 1..5 {
            scene.enter(Phase::Enumerating, turn * 60);
            scene.enter(Phase::Asking, turn * 60);
            scene.enter(Phase::Idle(Idle::NoTask), turn * 60);
            assert!(!file.exists());
            assert_eq!(scene.board.due(), None, "no wake-ups either");
        }
        scene.enter(Phase::Idle(Idle::ControllersDown), 300);
        assert_eq!(scene.word("reason"), "controllers-down");
        assert_eq!(scene.since(), 300);
    }

    #[test]
    fn to_be_idle_again_for_the_same_reason_is_to_go_on() {
        let mut scene = Scene::new("since");
        scene.enter(Phase::Idle(Idle::NoTask), 10);
        scene.enter(Phase::Asking, 70);
        // The controller takes its time: now it is worth a mention.
        let due = scene.board.due().unwrap();
        assert_eq!(due, at(scene.start, 71).instant);
        scene.board.tick(at(scene.start, 71));
        assert_eq!(
            (scene.word("phase").as_str(), scene.since()),
            ("asking", 70)
        );
        scene.enter(Phase::Idle(Idle::NoTask), 80);
        assert_eq!((scene.word("phase").as_str(), scene.since()), ("idle", 80));
    }

    #[test]
    fn a_task_is_shown_with_its_limit_and_then_among_the_results() {
        let mut scene = Scene::new("task");
        let subject = Subject {
            machine: Some("linux-gcc".to_owned()),
            task: Some("libfoo/1.2.3".to_owned()),
            ..Subject::default()
        };
        scene.board.subject(subject, at(scene.start, 1));
        let limit = Some(Duration::from_secs(5400));
        let now = at(scene.start, 2);
        scene.board.enter(Phase::Building, "", limit, now);
        assert_eq!(scene.word("task"), "libfoo/1.2.3");
        assert_eq!(
            scene.board.state.line(Duration::from_secs(42)),
            "building libfoo/1.2.3 on linux-gcc: 42s of 1h30m"
        );
        scene.board.draining(at(scene.start, 3));
        assert_eq!(scene.word("phase"), "draining");
        assert_eq!(scene.word("work"), "building");

        let outcome = Outcome {
            task: "libfoo/1.2.3".to_owned(),
            machine: "linux-gcc".to_owned(),
            status: "success".to_owned(),
            at: at(scene.start, 90).wall,
            took: Duration::from_secs(88),
            memory_peak: Some(5 << 30),
        };
        scene.board.finished(outcome, at(scene.start, 90));
        let metrics = fs::read_to_string(scene.dir.join("agent.prom")).unwrap();
        for line in [
            "bbot_agent_phase{toolchain=\"default\",instance=\"1\",phase=\"draining\"} 1\n",
            "bbot_agent_phase{toolchain=\"default\",instance=\"1\",phase=\"idle\"} 0\n",
            "bbot_agent_phase_limit_seconds{toolchain=\"default\",instance=\"1\"} 5400\n",
            "bbot_agent_tasks_total{toolchain=\"default\",instance=\"1\",status=\"success\"} 1\n",
            "bbot_agent_last_task_memory_peak_bytes{toolchain=\"default\",instance=\"1\"} 5368709120\n",
        ] {
            assert!(metrics.contains(line), "{line}{metrics}");
        }
        let (text, alive) =
            super::super::text("default-1", &scene.status(), at(scene.start, 100), None);
        assert!(alive);
        let pid = std::process::id();
        assert_eq!(
            text,
            format!(
                "default-1: draining, building, 1m38s of 1h30m (pid {pid})\n\
                 \x20 task        libfoo/1.2.3\n\
                 \x20 machine     linux-gcc\n\
                 \x20 results     libfoo/1.2.3 on linux-gcc: success in 1m28s, 10s ago\n"
            )
        );
    }
}
