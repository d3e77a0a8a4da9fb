//! The apps that have called: each has a line of its own to the router, which speaks for it and sees nothing of others.
//!
//! Bounded by the tokens that there were since the door opened: nobody else can name an app.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use sheaf_net::{Backoff, InProcess, Target};
use sheaf_task::{Answer, KeySecret, Question};
use tokio::task::JoinSet;

use crate::calls::{self, CallLimits, Caller, LineConfig};

/// Times that the router is asked what an earlier life of the door left.
const ASKS_MAX: usize = 20;

/// Whom a handler works for.
#[derive(Clone)]
pub(crate) struct Tenant {
    /// Its name; empty: whoever runs the router.
    pub app: Arc<str>,
    /// Its line.
    pub caller: Caller,
}

/// The router behind the door.
#[derive(Clone, Debug)]
pub(crate) struct RouterDoor(InProcess);

impl RouterDoor {
    pub(crate) fn new(door: InProcess) -> Self {
        Self(door)
    }

    /// As whoever speaks for `app` reaches it.
    pub(crate) fn target(&self, app: &str) -> Target {
        Target::InProcess(if app.is_empty() { self.0.clone() } else { self.0.for_app(app) })
    }
}

/// All of them.
pub(crate) struct Tenants {
    router: RouterDoor,
    secret: KeySecret,
    limits: CallLimits,
    /// Whoever runs the router: also asks what only that one may.
    owner: Tenant,
    // Handlers find theirs on several threads.
    others: Mutex<BTreeMap<Arc<str>, Tenant>>,
    /// Each line ends when its callers are gone.
    lines: Arc<Mutex<JoinSet<()>>>,
}

impl Tenants {
    /// With a line for the owner.
    pub(crate) fn open(router: RouterDoor, secret: KeySecret, limits: CallLimits) -> io::Result<Self> {
        let lines = Arc::<Mutex<JoinSet<()>>>::default();
        let owner = begin("", &router, &secret, limits, &lines)?;
        Ok(Self { router, secret, limits, owner, others: Mutex::default(), lines })
    }

    /// Whoever runs the router.
    pub(crate) fn owner(&self) -> &Tenant {
        &self.owner
    }

    /// The tenant of this name.
    pub(crate) fn get(&self, app: &str) -> io::Result<Tenant> {
        if app.is_empty() {
            return Ok(self.owner.clone());
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tenant) = others.get(app) {
            return Ok(tenant.clone());
        }
        let tenant = begin(app, &self.router, &self.secret, self.limits, &self.lines)?;
        others.insert(Arc::clone(&tenant.app), tenant.clone());
        Ok(tenant)
    }

    /// Begins a line for each of these apps whose calls an earlier life of the door has left: it takes what came of them, which
    /// else would wait at the router for the app's next call.
    pub(crate) async fn take_up_left(&self, apps: impl IntoIterator<Item = String>) {
        let mut backoff = Backoff::new(0);
        for _ in 0..ASKS_MAX {
            if let Ok(Answer::Jobs(jobs)) = self.owner.caller.ask(Question::Jobs).await {
                let is_left = |app: &String| jobs.iter().any(|job| calls::is_left_by(app, job));
                for app in apps.into_iter().filter(is_left) {
                    if let Err(error) = self.get(&app) {
                        tracing::warn!(%error, app, "what was left of an app's calls is taken with its next call");
                    }
                }
                return;
            }
            tokio::time::sleep(backoff.pause()).await;
        }
        tracing::warn!("the router does not say what was left of calls: each app's is taken with its next call");
    }

    /// To be waited for once this is dropped.
    pub(crate) fn lines(&self) -> Lines {
        Lines(Arc::clone(&self.lines))
    }
}

fn begin(
    app: &str,
    router: &RouterDoor,
    secret: &KeySecret,
    limits: CallLimits,
    lines: &Mutex<JoinSet<()>>,
) -> io::Result<Tenant> {
    let config = LineConfig { target: router.target(app), app: app.to_owned(), secret: secret.clone(), limits };
    let (caller, line) = calls::open(config)?;
    lines.lock().unwrap_or_else(PoisonError::into_inner).spawn(line);
    Ok(Tenant { app: app.into(), caller })
}

/// The lines of all tenants.
#[derive(Debug)]
pub(crate) struct Lines(Arc<Mutex<JoinSet<()>>>);

impl Lines {
    /// Ends them all now: whoever waits on one is told so.
    pub(crate) fn abort(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }

    /// Waits until all have ended.
    pub(crate) async fn ended(self) {
        let mut lines = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        while let Some(ended) = lines.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "a line of calls panicked");
            }
        }
    }
}
