//! How a program misbehaves on a row that says so.

/// The word of a poisonous row.
pub(super) fn word(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?.strip_prefix("poison:")?;
    text.split_whitespace().next()
}

/// Does it. Returns where the word asks for no more than is done here.
pub(super) fn misbehave(word: &str) -> anyhow::Result<()> {
    match word {
        "abort" => std::process::abort(),
        _ => anyhow::bail!("there is no poison `{word}`"),
    }
}
