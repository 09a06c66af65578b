//! Makes caller-supplied text inert inside a chat template.

/// A mark that nobody outside can guess.
///
/// Before a caller's text goes into a template, [`Guard::protect`] puts the mark behind every character at which a
/// control token could begin, and before the first character that is not whitespace. In the rendered text no control
/// token can then begin inside the caller's text, nor reach into it from template text in front: the mark stands in
/// between. After control tokens were recognised, [`Guard::remove`] takes the marks out again, so the model sees
/// exactly what the caller wrote, as ordinary text.
///
/// Marking the text, instead of substituting it after rendering, keeps templates working that trim, split or test it.
/// The mark is two private-use characters around digits: no template filter changes it, it does not count as
/// whitespace, and it cannot overlap itself. It comes from 64 random bits, so text that happens to contain it cannot
/// be prepared in advance.
#[derive(Debug, Clone)]
pub struct Guard {
    mark: String,
    /// First characters of the control tokens.
    starts: Vec<char>,
}

impl Guard {
    /// A guard against these control tokens. `nonce` must be fresh random bits for every prompt.
    pub fn new<'a>(control_texts: impl Iterator<Item = &'a str>, nonce: u64) -> Self {
        let mut starts: Vec<char> = control_texts.filter_map(|text| text.chars().next()).collect();
        starts.sort_unstable();
        starts.dedup();
        Self { mark: format!("\u{e000}{nonce:020}\u{e001}"), starts }
    }

    /// The caller's text with marks in it.
    #[must_use]
    pub fn protect(&self, text: &str) -> String {
        let mut marked = String::with_capacity(text.len() + 2 * self.mark.len());
        let mut at_front = true;
        for character in text.chars() {
            if at_front && !character.is_whitespace() {
                marked.push_str(&self.mark);
                at_front = false;
            }
            marked.push(character);
            if self.starts.contains(&character) {
                marked.push_str(&self.mark);
            }
        }
        marked
    }

    /// The text without marks.
    #[must_use]
    pub fn remove(&self, text: &str) -> String {
        text.replace(&self.mark, "")
    }
}
