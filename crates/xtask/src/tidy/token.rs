//! A Rust file as one flat list of tokens: no comments, strings as one token each, macro bodies like the rest.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::Visit;

/// A token. `depth` counts the brackets around it; an opening and its closing bracket have the same depth.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
    pub(crate) depth: usize,
    pub(crate) test: bool,
}

/// Every token of the stream in order, brackets too.
pub(crate) fn flatten(stream: TokenStream) -> Vec<Token> {
    let mut out = Vec::new();
    push(stream, 0, &mut out);
    out
}

fn push(stream: TokenStream, depth: usize, out: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = brackets(group.delimiter());
                out.push(Token { text: open.to_owned(), line, depth, test: false });
                push(group.stream(), depth + 1, out);
                out.push(Token { text: close.to_owned(), line: group.span_close().start().line, depth, test: false });
            }
            TokenTree::Ident(ident) => out.push(Token { text: ident.to_string(), line, depth, test: false }),
            TokenTree::Punct(punct) => out.push(Token { text: punct.to_string(), line, depth, test: false }),
            TokenTree::Literal(literal) => out.push(Token { text: literal.to_string(), line, depth, test: false }),
        }
    }
}

fn brackets(delimiter: Delimiter) -> (&'static str, &'static str) {
    match delimiter {
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::Brace => ("{", "}"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::None => ("", ""),
    }
}

/// Where `pattern` (tokens apart by spaces, each punctuation mark its own token) begins in `tokens`.
pub(crate) fn find<'a>(tokens: &'a [Token], pattern: &'a str) -> impl Iterator<Item = usize> + 'a {
    let wanted: Vec<&str> = pattern.split(' ').collect();
    let starts = tokens.len().saturating_sub(wanted.len() - 1);
    (0..starts).filter(move |start| wanted.iter().zip(&tokens[*start..]).all(|(want, token)| *want == token.text))
}

/// Marks the tokens that are compiled for tests only: the whole file, or its `#[cfg(test)]` items.
pub(crate) fn mark_tests(tokens: &mut [Token], syntax: &syn::File, whole: bool) {
    let mut finder = TestItems::default();
    finder.visit_file(syntax);
    for token in tokens {
        token.test = whole || finder.lines.iter().any(|(first, last)| (*first..=*last).contains(&token.line));
    }
}

#[derive(Default)]
struct TestItems {
    lines: Vec<(usize, usize)>,
}

impl<'ast> Visit<'ast> for TestItems {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        match &item.content {
            Some((brace, _)) if is_test(&item.attrs) => {
                self.lines.push((item.mod_token.span.start().line, brace.span.close().start().line));
            }
            Some(_) | None => syn::visit::visit_item_mod(self, item),
        }
    }
}

/// Whether one of these attributes is `#[cfg(test)]`.
pub(crate) fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .any(|attribute| attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test")))
}
