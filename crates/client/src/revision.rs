//! The default revision of a program: it changes when the program's answers may.
//!
//! It is a digest of the command line, the mode, the template, and the contents of every regular file that the command
//! line names: so an edited script is another revision. A bare program name (`rustc`, `python3`) is looked up in PATH
//! and not read: a system's update is no edit of ours. A file in an argument like `--model=FILE` is not seen; pass
//! `--revision` where that matters.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Digits of a default revision.
const DIGITS: usize = 16;

/// A file that the command line names and that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}, which the command line names: {error}; pass --revision to do without its contents")]
pub struct RevisionError {
    /// The file.
    pub path: PathBuf,
    /// What the file system said.
    pub error: io::Error,
}

/// The revision of a program called by `argv` in a mode (arguments, standard input, served), with a template or none.
pub fn default_revision(argv: &[OsString], mode: &str, template: &str) -> Result<String, RevisionError> {
    let mut hasher = blake3::Hasher::new();
    absorb(&mut hasher, mode.as_bytes());
    absorb(&mut hasher, template.as_bytes());
    absorb(&mut hasher, &argv.len().to_le_bytes());
    for (place, argument) in argv.iter().enumerate() {
        absorb(&mut hasher, argument.as_bytes());
        let path = Path::new(argument);
        let in_path = place == 0 && !argument.as_bytes().contains(&b'/');
        if !in_path && path.is_file() {
            let contents = digest(path).map_err(|error| RevisionError { path: path.to_owned(), error })?;
            absorb(&mut hasher, contents.as_bytes());
        }
    }
    Ok(hasher.finalize().to_hex()[..DIGITS].to_owned())
}

fn digest(path: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize())
}

fn absorb(hasher: &mut blake3::Hasher, part: &[u8]) {
    hasher.update(&(part.len() as u64).to_le_bytes());
    hasher.update(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edited_script_is_another_revision_and_an_unedited_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("model.py");
        std::fs::write(&script, "print(1)").unwrap();
        let argv = [OsString::from("python3"), script.clone().into_os_string(), "{}".into()];
        let revision = |mode| default_revision(&argv, mode, "").unwrap();
        let before = revision("args");
        assert_eq!(before, revision("args"));
        assert_ne!(before, revision("stdin"));
        std::fs::write(&script, "print(2)").unwrap();
        assert_ne!(before, revision("args"));
    }

    #[test]
    fn arguments_do_not_run_into_each_other() {
        let revision =
            |argv: &[&str]| default_revision(&argv.iter().map(OsString::from).collect::<Vec<_>>(), "args", "").unwrap();
        assert_ne!(revision(&["a", "bc"]), revision(&["ab", "c"]));
    }
}
