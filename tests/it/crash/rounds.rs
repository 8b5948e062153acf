//! One round: tasks go through a service that ends at a named step, perhaps again at its next start, and is
//! then left to bring them to their ends.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use supercargo::failpoints::Point;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::{Book, Client, Front};
use super::ledger::{Figures, audit};
use super::mix::{Kind, Order};
use crate::support::service::{Options, Service};
use crate::support::starts::Starts;
use crate::support::within;

/// Steps that come behind the end of all tasks, as removals do, are waited for.
const BEHIND: Duration = Duration::from_secs(30);
const SHORTLY_BEHIND: Duration = Duration::from_millis(300);
/// A start that does not come up. Long: a machine may do much else.
const STUCK: Duration = Duration::from_mins(1);

/// Where the process is ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arm {
    pub point: Point,
    pub turn: u32,
    /// It comes there for sure: if not, the round fails.
    pub must: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Round {
    /// One start of the service for each.
    pub arms: Vec<Arm>,
    pub kinds: Vec<Kind>,
    /// `SUPERCARGO_GUARDS_OUT`.
    pub guards_out: &'static str,
}

impl Round {
    pub(crate) fn name(&self) -> String {
        let arms = self.arms.iter().map(|it| format!("{}@{}", it.point.as_str(), it.turn));
        arms.collect::<Vec<_>>().join(" then ")
    }
}

/// What a round came to.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub kills: usize,
    pub figures: Figures,
    pub faults: Vec<String>,
}

/// Logs are stored in pieces that the small ones here fill, too.
pub(crate) fn options() -> Options {
    let chunk = ("SUPERCARGO__LOGS__CHUNK".to_owned(), "16Ki".to_owned());
    Options { env: vec![chunk], ..Options::default() }
}

/// A service whose data and Postgres are the same in all of its rounds.
pub(crate) struct Lane {
    pub service: Service,
    front: Front,
    starts: Arc<Starts>,
    rounds: usize,
}

impl Lane {
    pub(crate) async fn start(starts: &Arc<Starts>) -> Self {
        let mut service = Service::start_with(options()).await;
        service.kill9();
        Self { service, front: watch::Sender::new(None), starts: Arc::clone(starts), rounds: 0 }
    }

    pub(crate) async fn run(&mut self, round: &Round) -> Report {
        self.rounds += 1;
        let prefix = format!("r{}-", self.rounds);
        let mut report = Report::default();
        let book = Arc::new(Book::default());
        let mut callers = JoinSet::new();
        for (n, kind) in round.kinds.iter().enumerate() {
            let order = Order::new(*kind, format!("{prefix}{n}-{kind:?}"));
            callers.spawn(Client::new(&self.front, &book).carry_out(order));
        }
        for arm in &round.arms {
            self.begin(&[
                ("SUPERCARGO_FAILPOINTS", &format!("{}=kill@{}", arm.point.as_str(), arm.turn)),
                ("SUPERCARGO_GUARDS_OUT", round.guards_out),
            ]);
            let over = if arm.must { BEHIND } else { SHORTLY_BEHIND };
            match self.until_killed(&mut callers, over).await {
                Ok(true) => report.kills += 1,
                Ok(false) => {
                    if arm.must {
                        report.faults.push(format!("it never came to {}", arm.point.as_str()));
                    }
                    self.kill();
                }
                Err(fault) => report.faults.push(fault),
            }
        }
        self.begin(&[("SUPERCARGO_GUARDS_OUT", round.guards_out)]);
        within("the service is up", self.until_up()).await;
        while let Some(ended) = within("every task has ended", callers.join_next()).await {
            if let Err(error) = ended {
                report.faults.push(format!("a caller gave up: {error}"));
            }
        }
        let (api, database) = (self.service.api(), self.service.database_url());
        let (figures, faults) = audit(&book, &prefix, &api, &database, &self.starts).await;
        report.figures = figures;
        report.faults.extend(faults);
        self.kill();
        report
    }

    fn begin(&mut self, env: &[(&str, &str)]) {
        let env = env.iter().filter(|it| !it.1.is_empty());
        self.service.begin(env.map(|(name, it)| ((*name).to_owned(), (*it).to_owned())).collect());
    }

    fn kill(&mut self) {
        self.service.kill9();
        self.front.send_replace(None);
    }

    async fn until_up(&mut self) {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while !self.service.is_ready().await {
            assert!(self.service.ended_with().is_none(), "it ended by itself");
            tick.tick().await;
        }
        self.front.send_replace(Some(self.service.api()));
    }

    /// True: it was ended by SIGKILL. False: every task has ended, so has `over`, and it lives.
    async fn until_killed(
        &mut self,
        callers: &mut JoinSet<()>,
        over: Duration,
    ) -> Result<bool, String> {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        let (mut up, mut done_at, begun_at) = (false, None, Instant::now());
        loop {
            tick.tick().await;
            if let Some(status) = self.service.ended_with() {
                self.front.send_replace(None);
                return if status.signal() == Some(9) {
                    Ok(true)
                } else {
                    Err(format!("it ended with {status}"))
                };
            }
            if !up && self.service.is_ready().await {
                up = true;
                self.front.send_replace(Some(self.service.api()));
            }
            if !up && begun_at.elapsed() > STUCK {
                return Err("it neither came up nor died".to_owned());
            }
            while let Some(ended) = callers.try_join_next() {
                ended.map_err(|it| format!("a caller gave up: {it}"))?;
            }
            if callers.is_empty() && up {
                let done_at: &mut Instant = done_at.get_or_insert_with(Instant::now);
                if done_at.elapsed() > over {
                    return Ok(false);
                }
            }
        }
    }
}
