//! What the loop makes of its events.

use tokio::sync::oneshot;

use super::*;
use crate::config::finding::Severity;
use crate::control::{fixture, reload};
use crate::telemetry::report;

const DEADLINE: Duration = Duration::from_secs(10);

/// Handles worker events until `done`.
async fn until(gateway: &mut Gateway, done: impl Fn(&Gateway) -> bool) -> Step {
    let mut step = Step::Continue(());
    while !done(gateway) && step.is_continue() {
        let event = tokio::time::timeout(DEADLINE, gateway.sources.events.recv()).await.unwrap().unwrap();
        step = gateway.on_event(event);
    }
    step
}

fn generation(gateway: &Gateway) -> u64 {
    gateway.shared.status.borrow().generation
}

fn is_success(step: &Step) -> bool {
    // ExitCode has no equality.
    matches!(step, Step::Break(code) if format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS))
}

#[tokio::test]
async fn a_generation_is_published_when_every_worker_has_it() {
    let (mut gateway, _commands) = fixture::gateway(2);
    let (waiter, mut heard) = oneshot::channel();
    gateway.reloads.request(Some(waiter));
    gateway.reloads.begin(Instant::now());
    let _ = gateway.on_loaded(Ended { loader: Loader::default(), result: Ok(fixture::loaded()) });
    assert_eq!(generation(&gateway), 1);
    let first = gateway.sources.events.recv().await.unwrap();
    let _ = gateway.on_event(first);
    assert_eq!(generation(&gateway), 1);
    assert!(heard.try_recv().is_err());
    let _ = until(&mut gateway, |gateway| generation(gateway) == 2).await;
    let result = heard.try_recv().unwrap();
    assert_eq!((result.successful, result.generation), (true, 2));
    assert_eq!(gateway.shared.status.borrow().objects.len(), 1);
    assert_eq!(gateway.shared.facts().reloads_succeeded, 1);
}

#[tokio::test]
async fn a_refused_reload_leaves_the_generation_and_says_why() {
    let (mut gateway, _commands) = fixture::gateway(1);
    let (waiter, mut heard) = oneshot::channel();
    gateway.reloads.request(Some(waiter));
    gateway.reloads.begin(Instant::now());
    let findings = vec![reload::finding(Severity::Error, "PC0001", "listeners", "is missing")];
    let _ = gateway.on_loaded(Ended { loader: Loader::default(), result: Err(findings) });
    let result = heard.try_recv().unwrap();
    assert_eq!((result.successful, result.generation, result.findings.len()), (false, 1, 1));
    let text = report::exposition(&gateway.shared.facts(), &[]);
    assert!(text.contains("portcullis_config_last_reload_successful 0\n"), "{text}");
    assert!(text.contains("portcullis_reloads_total{result=\"failure\"} 1\n"), "{text}");
}

#[tokio::test]
async fn a_reload_of_missing_files_is_refused_by_the_loader_thread() {
    let (mut gateway, _commands) = fixture::gateway(1);
    let _ = gateway.on_signal(Request::Reload);
    let ended = tokio::time::timeout(DEADLINE, gateway.sources.loads.recv()).await.unwrap().unwrap();
    let _ = gateway.on_loaded(ended);
    assert!(!gateway.shared.status.borrow().last_reload.successful);
    assert!(gateway.loader.is_some());
}

#[tokio::test]
async fn the_gateway_ends_when_every_worker_has_drained() {
    let (mut gateway, _commands) = fixture::gateway(2);
    assert!(gateway.on_signal(Request::Drain).is_continue());
    assert_eq!(gateway.phase(), Phase::Draining);
    let step = until(&mut gateway, |_| false).await;
    assert!(is_success(&step));
    assert_eq!(gateway.drained.len(), 2);
}

#[tokio::test]
async fn a_second_sigterm_and_a_sigint_end_at_once() {
    let (mut gateway, _commands) = fixture::gateway(2);
    assert!(gateway.on_signal(Request::Drain).is_continue());
    assert!(is_success(&gateway.on_signal(Request::Drain)));
    let (mut gateway, _commands) = fixture::gateway(1);
    assert!(is_success(&gateway.on_signal(Request::Exit)));
}

#[tokio::test]
async fn a_worker_that_fails_takes_the_gateway_down_with_an_error() {
    let (mut gateway, _commands) = fixture::gateway(2);
    assert!(gateway.on_event(Event::Failed(0, "cannot bind".to_owned())).is_continue());
    assert_eq!(gateway.phase(), Phase::Draining);
    let step = until(&mut gateway, |_| false).await;
    assert!(step.is_break() && !is_success(&step));
}

#[tokio::test]
async fn a_drain_does_not_wait_for_ever() {
    let (mut gateway, _commands) = fixture::gateway(1);
    let _ = gateway.on_signal(Request::Drain);
    gateway.deadline = Some(Instant::now());
    assert!(is_success(&gateway.on_deadline()));
}

#[tokio::test]
async fn a_generation_that_a_worker_does_not_confirm_is_not_claimed_and_holds_up_no_later_reload() {
    let (mut gateway, _commands) = fixture::gateway(1);
    gateway.reloads.begin(Instant::now());
    let _ = gateway.on_loaded(Ended { loader: Loader::default(), result: Ok(fixture::loaded()) });
    if let Stage::Applying(applying) = &mut gateway.reloads.stage {
        applying.deadline = Instant::now();
    }
    let _ = gateway.on_deadline();
    assert_eq!(generation(&gateway), 1);
    assert!(gateway.reloads.request(None));
    assert_eq!(gateway.reloads.number(), 3, "a late confirmation must not pass for that of another generation");
}
