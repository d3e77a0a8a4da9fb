//! Links of this process that speak for an app: what each is shown, and that a session stays whose it is.

use sheaf_net::{Clock, Link, Source};
use sheaf_roles::port::{ClientCommand, ClientPort, ClientReport, Over, fit_dialer_config};
use sheaf_session::{Config, Depth, Refusal, Session, SessionId, Side};
use sheaf_task::{Answer, JobInfo, Question, ToRouter};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;

/// As whoever speaks for an app reaches the router.
fn as_app(server: &Server, app: &str) -> Target {
    Target::InProcess(server.door().for_app(app))
}

/// What the router says to the first question in a life of a session, or how it ends that.
async fn ask(target: Target, session: u8, life: u64, question: Question) -> Result<Answer, Over> {
    let config = Config { incarnation: life, boot: life, ..Config::default() };
    let session = Session::new(fit_dialer_config(config, Depth::Memory), Side::Dialer, SessionId([session; 16]), 1);
    let (commands, taken) = mpsc::channel(1);
    let (says, mut reports) = mpsc::channel(16);
    let source = Source::Dial { target, seed: 1 };
    let link = tokio::spawn(Link::new(ClientPort::new(session), Clock::start(), source, taken, says).run());
    let ask = ClientCommand::Send { tag: None, message: ToRouter::Ask { id: 1, question } };
    commands.send(vec![ask]).await.unwrap();
    let said = loop {
        let batch =
            timeout(Duration::from_secs(60), reports.recv()).await.expect("no answer").expect("the link has ended");
        let said = batch.into_iter().find_map(|report| match report {
            ClientReport::Answer { answer, .. } => Some(Ok(answer)),
            ClientReport::Over(over) => Some(Err(over)),
            ClientReport::Event { .. } | ClientReport::Piece { .. } => None,
        });
        if let Some(said) = said {
            break said;
        }
    };
    drop((commands, reports));
    link.await.unwrap();
    said
}

async fn jobs(target: Target, session: u8, life: u64) -> Vec<JobInfo> {
    match ask(target, session, life, Question::Jobs).await {
        Ok(Answer::Jobs(jobs)) => jobs,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_link_that_speaks_for_an_app_sees_that_app_and_stops_nothing() {
    let world = World::new(Limits::default());
    let server = world.start().await;
    world.rows("echo", 3);
    let worker = echo(&server, "echo");
    world.job_at(as_app(&server, "a"), "echo", "a.jsonl").await.unwrap();
    assert_eq!(lines(&world.path("a.jsonl")), 3);
    assert_eq!(jobs(as_app(&server, "a"), 1, 1).await.len(), 1);
    assert_eq!(jobs(as_app(&server, "b"), 2, 1).await, []);
    assert_eq!(jobs(server.target(), 3, 1).await.len(), 1);
    for (session, question) in [(4, Question::Shutdown), (5, Question::Workers)] {
        assert_eq!(ask(as_app(&server, "a"), session, 1, question).await, Ok(Answer::Forbidden));
    }
    worker.stop().await;
    stop(server).await;
}

#[tokio::test]
async fn a_session_stays_whose_it_is() {
    let world = World::new(Limits::default());
    let server = world.start().await;
    assert_eq!(jobs(as_app(&server, "a"), 1, 1).await, []);
    // A later life would take the session over, were it the same app's.
    for other in [as_app(&server, "b"), server.target()] {
        assert_eq!(ask(other, 1, 2, Question::Jobs).await, Err(Over::Refused(Refusal::Auth)));
    }
    assert_eq!(jobs(as_app(&server, "a"), 1, 2).await, []);
    stop(server).await;
}
