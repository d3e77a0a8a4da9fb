//! What an end of a program means: the outcome classes of an attempt.
//!
//! | end | outcome |
//! |---|---|
//! | exit 0 | ok, standard output as written |
//! | exit code of `--retry-exit` (75) | error |
//! | any other exit code | rejected |
//! | signal | crashed |
//! | not started: argument too long, NUL | rejected |
//! | not started: anything else | error |
//! | output over the limit | rejected |

use bytes::Bytes;
use sheaf_task::{BODY_BYTES_MAX, Class, Evidence, Failure, Outcome};

use super::pipes::Written;
use crate::keeper::End;

/// What was seen of one attempt.
pub(crate) struct Seen {
    pub(crate) end: End,
    pub(crate) stdout: Vec<u8>,
    /// More came than a result may hold; the program was killed for it.
    pub(crate) too_long: bool,
    pub(crate) stderr: Bytes,
}

impl Seen {
    pub(crate) fn new(end: End, written: Written) -> Self {
        let stderr = written.errors.bytes();
        Self { end, too_long: written.out.len() > BODY_BYTES_MAX, stdout: written.out, stderr }
    }
}

/// The outcome of an attempt that ran to its own end.
pub(crate) fn judge(program: &str, retry_exit: &[i32], seen: Seen) -> Outcome {
    if seen.too_long {
        return failed(
            Class::Rejected,
            format!(
                "{program} wrote more than {BODY_BYTES_MAX} bytes of output, the most that a result may hold; it was stopped"
            ),
            evidence(&seen),
        );
    }
    match seen.end {
        End::Exited(0) => Outcome::Ok(seen.stdout.into()),
        End::Exited(code) => {
            let class = if retry_exit.contains(&code) { Class::Error } else { Class::Rejected };
            failed(class, format!("{program} exited with code {code}{}", last_line(&seen.stderr)), evidence(&seen))
        }
        End::Signaled(signal) => failed(
            Class::Crashed,
            format!("{program} was ended by {}{}", signal_name(signal), last_line(&seen.stderr)),
            evidence(&seen),
        ),
        End::Failed(errno) => not_started(program, errno),
    }
}

/// The outcome of an attempt whose program could not be started.
pub(crate) fn not_started(program: &str, errno: i32) -> Outcome {
    if errno == rustix::io::Errno::TOOBIG.raw_os_error() {
        let message =
            format!("the row is too long to be an argument of {program}: let the program read it, with --stdin");
        return failed(Class::Rejected, message, Evidence::default());
    }
    let error = std::io::Error::from_raw_os_error(errno);
    failed(Class::Error, format!("{program} cannot be started: {error}"), Evidence::default())
}

/// A failure with what was seen.
pub(crate) fn failed(class: Class, message: String, evidence: Evidence) -> Outcome {
    Outcome::Failed(Failure { class, message, evidence: Box::new(evidence) })
}

fn evidence(seen: &Seen) -> Evidence {
    let (exit_code, signal) = code_and_signal(seen.end);
    Evidence { exit_code, signal, stderr: seen.stderr.clone(), ..Evidence::default() }
}

/// An end as the two fields of evidence.
pub(crate) fn code_and_signal(end: End) -> (Option<i32>, Option<i32>) {
    match end {
        End::Exited(code) => (Some(code), None),
        End::Signaled(signal) => (None, Some(signal)),
        End::Failed(_) => (None, None),
    }
}

/// Signals as people know them.
pub(crate) fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL (out of memory, perhaps)",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return format!("signal {signal}"),
    };
    format!("signal {signal}, {name}")
}

/// The last line of standard error that says something: `: error: no such thing`.
pub(crate) fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    match text.lines().rev().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) => format!(": {}", line.chars().take(LINE_CHARS_MAX).collect::<String>()),
        None => String::new(),
    }
}

/// Of a program's last line, as much as a message of one line bears.
const LINE_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn class_of(end: End, too_long: bool) -> Option<Class> {
        let seen = Seen { end, stdout: b"out".to_vec(), too_long, stderr: Bytes::from_static(b"why\n\n") };
        match judge("p", &[75, 3], seen) {
            Outcome::Ok(body) => {
                assert_eq!(body, "out");
                None
            }
            Outcome::Failed(failure) => Some(failure.class),
        }
    }

    #[test]
    fn each_end_has_its_class() {
        assert_eq!(class_of(End::Exited(0), false), None);
        assert_eq!(class_of(End::Exited(75), false), Some(Class::Error));
        assert_eq!(class_of(End::Exited(3), false), Some(Class::Error));
        assert_eq!(class_of(End::Exited(1), false), Some(Class::Rejected));
        assert_eq!(class_of(End::Signaled(11), false), Some(Class::Crashed));
        assert_eq!(class_of(End::Failed(2), false), Some(Class::Error));
        assert_eq!(class_of(End::Failed(7), false), Some(Class::Rejected));
        assert_eq!(class_of(End::Signaled(9), true), Some(Class::Rejected));
        assert_eq!(last_line(b"a\nb \n\n"), ": b");
    }
}
