//! A scenario: a plan written down by a person, with the story that must come of it.
//!
//! ```text
//! # what is shown, and why it matters            the header
//! seed 7                                         the plan: `read` and `write` are each other's inverse
//! worker batch 1 depth 0 time 100ms
//! client rows a b c
//! at 150ms kill router for 1s
//! ---
//!        0.0 router   starts, life 1             what happened, whole
//! verdict: 3 executions, 0 violations
//! ```
//!
//! It knows no file: text comes in, text goes out.

mod read;
#[cfg(test)]
mod tests;
mod write;

use crate::mutation::Planted;
use crate::plan::Plan;
use crate::trace::Show;
use crate::world::{Outcome, World};

pub use read::{Reason, ScenarioError};

/// A scenario as its file has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// All before the separator, as it stands: the header and the plan.
    head: String,
    /// What is to be run.
    pub plan: Plan,
    /// What must come of it; empty in a scenario that has not been recorded.
    pub expected: String,
}

/// What stands between a plan and its story.
const SEPARATOR: &str = "---\n";

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// The first line of the plan that says nothing, and why.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let (head, expected) = match text.split_once(&format!("\n{SEPARATOR}")) {
            Some((head, expected)) => (format!("{head}\n"), expected.to_owned()),
            None => (text.to_owned(), String::new()),
        };
        Ok(Self { plan: read::plan(&head)?, head, expected })
    }

    /// The scenario that a plan is, without a story.
    pub fn of(plan: Plan) -> Self {
        Self { head: write::plan(&plan), plan, expected: String::new() }
    }

    /// Runs it; `planted`: with this rule removed. The story with its verdict, and all else that came of it.
    pub fn play(&self, planted: Option<Planted>) -> (String, Outcome) {
        let outcome = World::new(&self.plan, planted, Show::Story).run();
        let mut story: String = outcome.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        for violation in &outcome.violations {
            story.push_str(&format!("violated: {}\n", violation.0));
        }
        let (executed, violations) = (outcome.executed, outcome.violations.len());
        story.push_str(&format!("verdict: {executed} executions, {violations} violations\n"));
        (story, outcome)
    }

    /// The file, with this story.
    pub fn with_story(&self, story: &str) -> String {
        format!("{}{SEPARATOR}{story}", self.head)
    }

    /// The header and the plan alone.
    pub fn head(&self) -> &str {
        &self.head
    }
}
