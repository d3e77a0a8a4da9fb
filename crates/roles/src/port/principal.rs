//! Whom a session speaks for: decided by whoever lets it in, before its first message is believed.

use crate::router::View;

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

    /// It may open jobs and submit rows.
    pub(super) fn runs_jobs(&self) -> bool {
        matches!(self, Principal::Owner | Principal::Client(_))
    }

    /// It may register as a worker.
    pub(super) fn works(&self) -> bool {
        matches!(self, Principal::Owner | Principal::Worker)
    }

    /// It may ask about what belongs to no app in particular, and stop the router.
    pub(super) fn operates(&self) -> bool {
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
