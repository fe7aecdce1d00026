//! Callers who go away before they have an answer.

use std::sync::Condvar;

use super::*;
use crate::server::fake::{Fake, until};

/// A call that began as the one that tries whether the server is back, and whose caller went away.
async fn a_trial_given_up(is_one: bool, lane: Lane) {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let at_the_gate = gate.clone();
    let server = Fake::start(move |_| {
        let (is_open, opened) = &*at_the_gate;
        drop(opened.wait_while(is_open.lock().ok()?, |is_open| !*is_open));
        Some(b"+OK\r\n".to_vec())
    });
    let (patient, pause) = (Duration::from_secs(30), Duration::from_millis(300));
    let link = server.link_with(|options| {
        let patient = options.command_deadline(patient).connect_timeout(patient);
        patient.breaker(1, pause)
    });
    let now = Instant::now().into_std();
    assert_eq!(link.breaker.failed(now, now), Verdict::Opened);
    let help = redis::cmd("MCACHE.HELP");
    let mut pipeline = redis::pipe();
    pipeline.add_command(help.clone()).add_command(help.clone());
    loop {
        let call = async {
            match (lane, is_one) {
                (Lane::Bulk, _) => link.call_bulk(&help, 0).await.map(drop),
                (_, true) => link.call(&help, Urgency::Optional).await.map(drop),
                (_, false) => (link.call_all(&pipeline, Urgency::Optional).await).map(drop),
            }
        };
        match timeout(Duration::from_millis(20), call).await {
            Ok(Err(CallError::Resting)) => tokio::time::sleep(Duration::from_millis(1)).await,
            Ok(other) => panic!("{other:?}"),
            Err(_) => break,
        }
    }
    let (is_open, opened) = &*gate;
    *is_open.lock().expect("no test panicked with it") = true;
    opened.notify_all();
    // For two at one moment only if it is closed.
    let is_closed = || {
        let now = Instant::now().into_std();
        (0..2).all(|_| link.breaker.allows(now))
    };
    until("the server is known to be back", is_closed).await;
}

#[tokio::test]
async fn a_caller_who_tries_whether_the_server_is_back_and_goes_away_leaves_a_question() {
    for (is_one, lane) in [
        (true, Lane::Shared),
        (false, Lane::Shared),
        (true, Lane::Bulk),
    ] {
        a_trial_given_up(is_one, lane).await;
    }
}

#[tokio::test]
async fn callers_of_several_commands_who_go_away_leave_a_question_as_others_do() {
    let server = Fake::start(|_| {
        loop {
            std::thread::park();
        }
    });
    let link = server.link(1);
    let mut pipeline = redis::pipe();
    pipeline.cmd("MCACHE.HELP").cmd("MCACHE.HELP");
    let call = link.call_all(&pipeline, Urgency::MustArrive);
    let gone = timeout(Duration::from_millis(20), call).await;
    assert!(gone.is_err(), "it is not answered");
    let allows = || link.breaker.allows(Instant::now().into_std());
    until("it is found out that the server hangs", || !allows()).await;
}
