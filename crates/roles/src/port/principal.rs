//! Whom a session speaks for: decided by whoever lets it in, before its first message is believed.

use sheaf_task::{Answer, Question, Refusal, ToClient, ToRouter, ToWorker};

use crate::router::{Outbound, View};

/// Whom a session speaks for, and so what it may say and see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Whoever runs the router: everything, and its own jobs belong to no app.
    Owner,
    /// A tenant: runs jobs of its app, and asks about them.
    Client(String),
    /// Does the work of every app.
    Worker,
    /// Asks about everything and gives orders about it; runs no jobs.
    Admin,
}

impl Principal {
    /// The app that its jobs belong to.
    pub fn app(&self) -> &str {
        match self {
            Principal::Client(app) => app,
            Principal::Owner | Principal::Worker | Principal::Admin => "",
        }
    }

    /// Whether it may send this.
    pub(super) fn may_say(&self, message: &ToRouter) -> bool {
        match message {
            ToRouter::OpenJob(_) | ToRouter::Submit { .. } | ToRouter::Scanned { .. } | ToRouter::Watch { .. } => {
                self.runs_jobs()
            }
            ToRouter::Ask { question, .. } => match question {
                Question::Workers | Question::Stats | Question::Shutdown => self.operates(),
                Question::Withdraw { .. } => self.runs_jobs(),
                // The machine answers as the view has it.
                Question::Jobs
                | Question::CancelJob(_)
                | Question::Task(_)
                | Question::Failures { .. }
                | Question::Retry { .. } => self.view().is_some(),
            },
            ToRouter::Register(_)
            | ToRouter::Results(_)
            | ToRouter::Recalled(_)
            | ToRouter::Leave
            | ToRouter::Piece(_) => self.works(),
        }
    }

    fn runs_jobs(&self) -> bool {
        matches!(self, Principal::Owner | Principal::Client(_))
    }

    fn works(&self) -> bool {
        matches!(self, Principal::Owner | Principal::Worker)
    }

    /// It may ask about what belongs to no app in particular, and stop the router.
    fn operates(&self) -> bool {
        matches!(self, Principal::Owner | Principal::Admin)
    }

    /// Which jobs and tasks are there for it; `None`: it may not ask.
    pub(super) fn view(&self) -> Option<View> {
        match self {
            Principal::Owner | Principal::Admin => Some(View::All),
            Principal::Client(app) => Some(View::App(app.clone())),
            Principal::Worker => None,
        }
    }
}

/// What is said to a message that may not be sent; `None`: nothing, for it rests on another, which is answered.
pub(super) fn turned_down(message: &ToRouter) -> Option<Outbound> {
    match message {
        ToRouter::OpenJob(spec) => {
            Some(Outbound::client(ToClient::JobRefused { job: spec.job, refusal: Refusal::Forbidden }))
        }
        ToRouter::Ask { id, question: _ } => {
            Some(Outbound::client(ToClient::Answer { id: *id, answer: Answer::Forbidden }))
        }
        ToRouter::Register(_) => Some(Outbound::Worker(ToWorker::Refused(Refusal::Forbidden))),
        ToRouter::Submit { .. }
        | ToRouter::Scanned { .. }
        | ToRouter::Results(_)
        | ToRouter::Recalled(_)
        | ToRouter::Leave
        | ToRouter::Watch { .. }
        | ToRouter::Piece(_) => None,
    }
}
