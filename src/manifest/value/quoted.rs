//! Lists whose elements may have spaces in quotes: machine options,
//! configuration arguments.

/// Splits `text` at spaces, tabs and newlines that are not in quotes.
///
/// Either quote starts a part that ends at the same quote; the other one, and
/// any backslash, is an ordinary character in it. With `unquote`, the quotes
/// that start and end parts are removed.
pub fn quoted_list(text: &str, unquote: bool) -> Result<Vec<String>, &'static str> {
    let mut elements = Vec::new();
    // `None` between elements: `""` is an element, and an empty one.
    let mut element: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (c, quote) {
            (' ' | '\t' | '\n' | '\r', None) => elements.extend(element.take()),
            ('"' | '\'', None) => {
                quote = Some(c);
                let element = element.get_or_insert_default();
                element.extend((!unquote).then_some(c));
            }
            (c, Some(q)) if c == q => {
                quote = None;
                element
                    .get_or_insert_default()
                    .extend((!unquote).then_some(c));
            }
            (c, _) => element.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("unterminated quoted string");
    }
    elements.extend(element);
    Ok(elements)
}
