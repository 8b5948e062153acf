//! Kills at any time, under a steady load.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::{Book, Client, Front};
use super::ledger::audit;
use super::mix::{Kind, Order};
use super::rounds::options;
use super::seed::{Random, is_soak, seed};
use crate::support::containers;
use crate::support::service::Service;
use crate::support::starts::Starts;
use crate::support::{until, within};

/// Orders that are under way at a time.
const CALLERS: usize = 6;
const PREFIX: &str = "l-";
/// What is ordered; what stands here more than once is ordered more often.
const KINDS: [Kind; 18] = [
    Kind::Small,
    Kind::Small,
    Kind::Small,
    Kind::Streams,
    Kind::Outputs,
    Kind::Outputs,
    Kind::Files,
    Kind::BigLog,
    Kind::FailsOnce,
    Kind::ByHand,
    Kind::AtMostOnce,
    Kind::AtMostOnce,
    Kind::Cancelled,
    Kind::CancelledInQueue,
    Kind::TimesOut,
    Kind::Skipped,
    Kind::NotFound,
    Kind::Batch,
];

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_time_under_load_lose_nothing_and_run_nothing_twice() {
    if !containers::available().await {
        return;
    }
    let (seed, begun) = (seed(), Instant::now());
    let kills = if is_soak() { 200 } else { 8 };
    eprintln!("SUPERCARGO_TEST_SEED={seed}: {kills} kills");
    let mut random = Random::new(seed);
    let starts = Starts::record().await;
    let mut service = Service::start_with(options()).await;
    let (front, book) = (Front::new(None), Arc::new(Book::default()));
    let (stop, stopped) = watch::channel(false);
    let done = watch::Sender::new(vec![0_u64; CALLERS]);
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (client, mut random) = (Client::new(&front, &book), Random::new(seed + caller as u64));
        let (stopped, done) = (stopped.clone(), done.clone());
        callers.spawn(async move {
            let mut n = 0;
            while !*stopped.borrow() {
                let kind = *random.one_of(&KINDS);
                n += 1;
                let order = Order::new(kind, format!("{PREFIX}{caller}-{n}-{kind:?}"));
                client.clone().carry_out(order).await;
                done.send_modify(|it| it[caller] += 1);
            }
        });
    }
    front.send_replace(Some(service.api()));
    let mut early = 0;
    for _ in 0..kills {
        // One in eight before it is up.
        let is_early = random.below(8) == 0;
        if is_early {
            early += 1;
        } else {
            up(&mut service, &front).await;
        }
        // One in eight when every caller has brought something to its end: on a busy machine what takes long
        // would never come to it.
        if !is_early && random.below(8) == 0 {
            let before = done.borrow().clone();
            let all = |it: &Vec<u64>| it.iter().zip(&before).all(|(now, then)| now > then);
            let mut done = done.subscribe();
            within("every caller goes on", done.wait_for(all)).await.unwrap();
        }
        let after = Duration::from_millis(20 + random.below(if is_early { 400 } else { 1_480 }));
        // It lives until then.
        let died = until("it dies by itself", after * 10, async || service.ended_with());
        if let Ok(status) = tokio::time::timeout(after, died).await {
            panic!("SUPERCARGO_TEST_SEED={seed}: it ended by itself, with {status}");
        }
        service.kill9();
        assert_eq!(service.ended_with().and_then(|it| it.signal()), Some(9));
        front.send_replace(None);
        service.begin(Vec::new());
    }
    up(&mut service, &front).await;
    stop.send_replace(true);
    while let Some(ended) = within("every task has ended", callers.join_next()).await {
        ended.unwrap();
    }
    let (api, database) = (service.api(), service.database_url());
    let (figures, faults) = audit(&book, PREFIX, &api, &database, &starts).await;
    eprintln!(
        "{kills} kills ({early} before it was up): {} tasks accepted, {} requests sent again, {} attempts, \
         {} containers started, {} adoptions, {} violations, {:.0} s",
        figures.tasks,
        book.again.load(Ordering::Relaxed),
        figures.attempts,
        figures.started,
        figures.adopted,
        faults.len(),
        begun.elapsed().as_secs_f64()
    );
    assert!(faults.is_empty(), "SUPERCARGO_TEST_SEED={seed}\n{}", faults.join("\n"));
}

async fn up(service: &mut Service, front: &Front) {
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let up = async {
        while !service.is_ready().await {
            let ended = service.ended_with();
            assert!(ended.is_none(), "it ended by itself, with {ended:?}");
            tick.tick().await;
        }
    };
    within("the service is up", up).await;
    front.send_replace(Some(service.api()));
}
