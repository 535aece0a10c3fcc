//! A Rust file's imports, paths and modules, read from its tokens.
//!
//! Tokens are enough: paths inside macros count too, and nothing needs to be expanded. Code under `#[cfg(test)]` is left out.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The code of one module: of a file, or of `mod name { .. }` within it.
#[derive(Debug, Default)]
pub struct Source {
    /// `mod` declarations.
    pub modules: Vec<Declaration>,
    /// `use` declarations, one for each name.
    pub imports: Vec<Import>,
    /// Paths of two segments or more in code.
    pub paths: Vec<CodePath>,
    /// Names of the items that stand in the module itself.
    pub items: BTreeSet<String>,
    /// Names in code that a path may start with.
    pub words: BTreeSet<String>,
}

/// `mod name;` or `mod name { .. }`.
#[derive(Debug)]
pub struct Declaration {
    pub name: String,
    /// The value of `#[path = ".."]`.
    pub path: Option<String>,
    /// The code between the braces.
    pub inline: Option<Source>,
}

/// One name of a `use` declaration.
#[derive(Debug)]
pub struct Import {
    /// The name it gives; `None` for `*`.
    pub name: Option<String>,
    pub path: Vec<String>,
    /// `pub use`, `pub(crate) use`, ..
    pub reexport: bool,
    pub line: usize,
}

/// A path such as `crate::a::B`, without generic arguments.
#[derive(Debug)]
pub struct CodePath {
    pub path: Vec<String>,
    pub line: usize,
}

/// Reads the text of a file.
pub fn parse(text: &str) -> Result<Source> {
    let tokens: TokenStream =
        text.parse().map_err(|e: proc_macro2::LexError| anyhow!("line {}: {e}", e.span().start().line))?;
    let mut source = Source::default();
    source.read(&tokens.into_iter().collect::<Vec<_>>(), true);
    Ok(source)
}

const ITEM_KEYWORDS: [&str; 8] = ["fn", "struct", "enum", "union", "trait", "type", "const", "static"];

impl Source {
    /// Reads the tokens of one level and of the groups in it. `top`: the level of the module itself.
    fn read(&mut self, tokens: &[TokenTree], top: bool) {
        let mut i = 0;
        let mut path_attribute = None;
        let mut reexport = false;
        while i < tokens.len() {
            let word = ident(tokens.get(i));
            match (&tokens[i], word.as_deref()) {
                (TokenTree::Punct(p), _) if p.as_char() == '#' => {
                    let at = i + 1 + usize::from(is_punct(tokens.get(i + 1), '!'));
                    let Some(content) = group(tokens.get(at), Delimiter::Bracket) else {
                        i += 1;
                        continue;
                    };
                    i = at + 1;
                    if is_cfg_test(&content) {
                        i = end_of_item(tokens, i);
                    } else if ident(content.first()).as_deref() == Some("path") {
                        path_attribute = content.get(2).map(|text| text.to_string().trim_matches('"').to_owned());
                    } else {
                        self.read(&content, false);
                    }
                    continue;
                }
                (_, Some("pub")) => {
                    reexport = true;
                    i += 1 + usize::from(group(tokens.get(i + 1), Delimiter::Parenthesis).is_some());
                    continue;
                }
                // `use<'a>` is a bound.
                (token, Some("use")) if !is_punct(tokens.get(i + 1), '<') => {
                    let line = token.span().start().line;
                    let end = i + tokens[i..].iter().take_while(|&t| !is_punct(Some(t), ';')).count();
                    self.read_use(&tokens[i + 1..end], &[], reexport, line);
                    i = end;
                }
                (_, Some("mod")) => {
                    if let Some(name) = ident(tokens.get(i + 1)) {
                        let inline = group(tokens.get(i + 2), Delimiter::Brace).map(|content| {
                            let mut inner = Self::default();
                            inner.read(&content, true);
                            inner
                        });
                        self.modules.push(Declaration { name, path: path_attribute.take(), inline });
                        i += 2;
                    }
                }
                (token, Some(first)) => {
                    if top && (ITEM_KEYWORDS.contains(&first) || first == "macro_rules") {
                        let at = i + 1 + usize::from(first == "macro_rules");
                        self.items.extend(ident(tokens.get(at)));
                    }
                    let line = token.span().start().line;
                    let absolute = i >= 2 && is_separator(tokens, i - 2);
                    let (path, next) = read_path(tokens, i);
                    if !absolute {
                        self.words.insert(first.to_owned());
                        if path.len() > 1 {
                            self.paths.push(CodePath { path, line });
                        }
                    }
                    i = next;
                    reexport = false;
                    continue;
                }
                (TokenTree::Group(inner), _) => self.read(&inner.stream().into_iter().collect::<Vec<_>>(), false),
                _ => {}
            }
            reexport = false;
            i += 1;
        }
    }

    /// Reads the tree behind `use`, under the path `prefix`.
    fn read_use(&mut self, tokens: &[TokenTree], prefix: &[String], reexport: bool, line: usize) {
        if is_separator(tokens, 0) {
            // An external crate's path.
            return;
        }
        let (segments, mut at) = if ident(tokens.first()).is_some() { read_path(tokens, 0) } else { (Vec::new(), 0) };
        let mut path = [prefix, &segments].concat();
        if is_separator(tokens, at) {
            at += 2;
        }
        if let Some(content) = group(tokens.get(at), Delimiter::Brace) {
            for branch in content.split(|t| is_punct(Some(t), ',')).filter(|branch| !branch.is_empty()) {
                self.read_use(branch, &path, reexport, line);
            }
            return;
        }
        let name = if is_punct(tokens.get(at), '*') {
            None
        } else {
            // `use a::{self}` gives `a`.
            if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                path.pop();
            }
            let alias = (ident(tokens.get(at)).as_deref() == Some("as")).then(|| ident(tokens.get(at + 1))).flatten();
            alias.or_else(|| path.last().cloned())
        };
        self.imports.push(Import { name, path, reexport, line });
    }
}

/// The segments from token `at` on, and the first token behind them.
fn read_path(tokens: &[TokenTree], at: usize) -> (Vec<String>, usize) {
    let mut path: Vec<String> = ident(tokens.get(at)).into_iter().collect();
    let mut next = at + 1;
    while is_separator(tokens, next)
        && let Some(segment) = ident(tokens.get(next + 2))
    {
        path.push(segment);
        next += 3;
    }
    (path, next)
}

/// Whether `::` stands at token `at`.
fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')
}

fn is_punct(token: Option<&TokenTree>, c: char) -> bool {
    matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == c)
}

fn ident(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(word)) => Some(word.to_string().trim_start_matches("r#").to_owned()),
        _ => None,
    }
}

fn group(token: Option<&TokenTree>, delimiter: Delimiter) -> Option<Vec<TokenTree>> {
    match token {
        Some(TokenTree::Group(group)) if group.delimiter() == delimiter => Some(group.stream().into_iter().collect()),
        _ => None,
    }
}

/// Whether an attribute is `cfg(test)` or `cfg(all(test, ..))`.
fn is_cfg_test(attribute: &[TokenTree]) -> bool {
    let arguments = |tokens: &[TokenTree], name: &str| {
        (ident(tokens.first()).as_deref() == Some(name)).then(|| group(tokens.get(1), Delimiter::Parenthesis)).flatten()
    };
    arguments(attribute, "cfg").is_some_and(|condition| {
        let terms = arguments(&condition, "all").unwrap_or(condition);
        terms
            .split(|t| is_punct(Some(t), ','))
            .any(|term| term.len() == 1 && ident(term.first()).as_deref() == Some("test"))
    })
}

/// The first token behind the item that starts at `at`.
fn end_of_item(tokens: &[TokenTree], at: usize) -> usize {
    let mut import = false;
    for (i, token) in tokens.iter().enumerate().skip(at) {
        import |= ident(Some(token)).as_deref() == Some("use");
        let block = !import && group(Some(token), Delimiter::Brace).is_some();
        if block || is_punct(Some(token), ';') {
            return i + 1;
        }
    }
    tokens.len()
}
