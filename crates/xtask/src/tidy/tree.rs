//! The checkout as tidy sees it: Rust files parsed once, other texts as lines, and the crates. Judges nothing.

use std::fs;
use std::path::Path;

use anyhow::Context;

use super::token::{self, Token};
use crate::workspace::{self, Crate};

/// Everything that rules look at.
#[derive(Default)]
pub(crate) struct Tree {
    pub(crate) rust: Vec<RustFile>,
    pub(crate) texts: Vec<TextFile>,
    pub(crate) crates: Vec<Crate>,
}

/// Any text file, Rust included. `path` is relative to the root, with `/`.
pub(crate) struct TextFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A Rust file.
pub(crate) struct RustFile {
    pub(crate) path: String,
    /// Its lines, as they are.
    pub(crate) lines: Vec<String>,
    pub(crate) syntax: syn::File,
    /// Every token in order, macro bodies included; comments are not among them.
    pub(crate) tokens: Vec<Token>,
}

/// What tidy reads, beside the directories of `DIRECTORIES`.
const EXTENSIONS: [&str; 7] = ["rs", "md", "toml", "yml", "txt", "sh", "lock"];
const DIRECTORIES: [&str; 6] = ["bench", "crates", "docs", "examples", ".github", ".ci"];

impl Tree {
    /// Reads the checkout.
    ///
    /// # Errors
    /// When a file cannot be read or is no Rust.
    pub(crate) fn read(root: &Path) -> anyhow::Result<Self> {
        let mut paths = Vec::new();
        files_of(root, &mut paths, false)?;
        for directory in DIRECTORIES {
            files_of(&root.join(directory), &mut paths, true)?;
        }
        paths.sort();
        let mut tree = Tree { crates: workspace::crates()?, ..Tree::default() };
        for path in paths {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let relative = path.strip_prefix(root).context("outside the root")?.to_string_lossy().replace('\\', "/");
            tree.add(&relative, text)?;
        }
        Ok(tree)
    }

    fn add(&mut self, path: &str, text: String) -> anyhow::Result<()> {
        if Path::new(path).extension().is_some_and(|extension| extension == "rs") {
            self.rust.push(RustFile::parse(path, &text).with_context(|| path.to_owned())?);
        }
        self.texts.push(TextFile { path: path.to_owned(), text });
        Ok(())
    }

    /// The text of one file, if it is there.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.texts.iter().find(|file| file.path == path).map(|file| file.text.as_str())
    }

    /// A tree made of texts alone: how the rules' tests say what they look at.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.add(path, (*text).to_owned()).unwrap();
        }
        tree
    }
}

impl RustFile {
    fn parse(path: &str, text: &str) -> anyhow::Result<Self> {
        let stream = text.parse().map_err(|error| anyhow::anyhow!("no Rust: {error}"))?;
        let syntax = syn::parse_file(text)?;
        let mut tokens = token::flatten(stream);
        token::mark_tests(&mut tokens, &syntax, is_test_path(path));
        let lines = text.lines().map(str::to_owned).collect();
        Ok(Self { path: path.to_owned(), lines, syntax, tokens })
    }

    /// The directory under `crates/` that this file belongs to.
    pub(crate) fn crate_name(&self) -> &str {
        self.path.strip_prefix("crates/").and_then(|rest| rest.split('/').next()).unwrap_or_default()
    }

    /// Whether this is part of the crate's library or main program: no test, example, bench or build script.
    pub(crate) fn is_library(&self) -> bool {
        let inside = self.path.strip_prefix("crates/").and_then(|rest| rest.split_once('/')).map(|(_, rest)| rest);
        inside.is_some_and(|rest| rest.starts_with("src/") && !rest.starts_with("src/bin/"))
            && !is_test_path(&self.path)
    }

    /// Whether a comment stands on this line (from 1) or on the line before it.
    pub(crate) fn is_explained(&self, line: usize) -> bool {
        let at = |line: usize| line.checked_sub(1).and_then(|index| self.lines.get(index));
        at(line).is_some_and(|text| text.contains("// "))
            || at(line.saturating_sub(1)).is_some_and(|text| text.trim_start().starts_with("// "))
    }
}

fn is_test_path(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

fn files_of(directory: &Path, out: &mut Vec<std::path::PathBuf>, deep: bool) -> anyhow::Result<()> {
    if !directory.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if deep && !matches!(name.as_ref(), "target" | ".git") && !name.ends_with(".sheaf") {
                files_of(&path, out, deep)?;
            }
        } else if is_read(&path, &name) {
            out.push(path);
        }
    }
    Ok(())
}

fn is_read(path: &Path, name: &str) -> bool {
    let known = path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|one| extension == *one));
    known || name.starts_with("LICENSE") || path.ends_with(".ci/run")
}
