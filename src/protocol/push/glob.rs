//! Glob-style matching for push rules, in bounded time.
//!
//! Specification: appendices, "Glob-style matching", and `event_match`. A pattern is cut at its `*` into segments, and
//! each is found as far left as possible, so nothing is tried twice. Users choose the patterns and strangers the
//! text, so comparisons are counted besides: whatever the rules are, a member costs at most [`STEPS_LIMIT`].

/// How many characters all patterns of one member may compare with one event, some milliseconds' worth. A hundred
/// keywords in a message of 64 KiB stay below. What is left then does not match.
pub(crate) const STEPS_LIMIT: u32 = 8_000_000;

/// Where in a text a pattern must match.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// All of it.
    Whole,
    /// Any part that starts and ends at a word boundary.
    Words,
}

/// The comparisons that are left.
pub(crate) struct Steps(u32);

impl Steps {
    pub(crate) fn new() -> Self {
        Steps(STEPS_LIMIT)
    }

    fn take(&mut self) -> bool {
        match self.0.checked_sub(1) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
}

/// Whether the text matches a pattern with `*` for any and `?` for one character, in either case.
pub(crate) fn matches(pattern: &str, text: &str, place: Place, steps: &mut Steps) -> bool {
    if pattern.is_empty() {
        return text.is_empty();
    }
    let mut search = Search { text, place, wildcard: true, steps };
    match pattern.split_once('*') {
        None => search.find(pattern, 0, Edges::Both).is_some(),
        Some((first, rest)) => search.find(first, 0, Edges::Start).is_some_and(|end| search.find_rest(rest, end)),
    }
}

/// Whether the words occur in the text, in either case. They are no pattern.
pub(crate) fn contains_words(words: &str, text: &str, steps: &mut Steps) -> bool {
    let mut search = Search { text, place: Place::Words, wildcard: false, steps };
    !words.is_empty() && search.find(words, 0, Edges::Both).is_some()
}

/// Which edges of a segment are those of the match.
#[derive(Clone, Copy)]
enum Edges {
    Start,
    None,
    End,
    Both,
}

struct Search<'t, 's> {
    text: &'t str,
    place: Place,
    /// Whether `?` stands for any character.
    wildcard: bool,
    steps: &'s mut Steps,
}

impl Search<'_, '_> {
    /// Finds what follows the first `*` of a pattern, from this byte on.
    fn find_rest(&mut self, mut rest: &str, mut from: usize) -> bool {
        while let Some((segment, more)) = rest.split_once('*') {
            match self.find(segment, from, Edges::None) {
                Some(end) => from = end,
                None => return false,
            }
            rest = more;
        }
        self.find(rest, from, Edges::End).is_some()
    }

    /// Finds the leftmost occurrence from this byte on and gives the byte behind it.
    fn find(&mut self, segment: &str, from: usize, edges: Edges) -> Option<usize> {
        let (at_start, at_end) = (matches!(edges, Edges::Start | Edges::Both), matches!(edges, Edges::End | Edges::Both));
        let mut start = from;
        loop {
            if (!at_start || self.is_edge(start, 0))
                && let Some(end) = self.end_of(segment, start)
                && (!at_end || self.is_edge(end, self.text.len()))
            {
                return Some(end);
            }
            if at_start && self.place == Place::Whole {
                return None;
            }
            if !self.steps.take() {
                return None;
            }
            start += self.text.get(start..)?.chars().next()?.len_utf8();
        }
    }

    /// Where the segment ends if it is at this byte.
    fn end_of(&mut self, segment: &str, start: usize) -> Option<usize> {
        let mut text = self.text.get(start..)?.chars();
        for wanted in segment.chars() {
            let found = text.next()?;
            if !self.steps.take() || !(self.wildcard && wanted == '?' || same_letter(wanted, found)) {
                return None;
            }
        }
        Some(self.text.len() - text.as_str().len())
    }

    /// Whether a match may start or end at this byte; of the whole text only at `whole`.
    fn is_edge(&self, at: usize, whole: usize) -> bool {
        match self.place {
            Place::Whole => at == whole,
            Place::Words => {
                let (before, after) = self.text.split_at_checked(at).unwrap_or_default();
                !(before.ends_with(is_word_character) && after.starts_with(is_word_character))
            }
        }
    }
}

fn is_word_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn same_letter(a: char, b: char) -> bool {
    a == b || if a.is_ascii() && b.is_ascii() { a.eq_ignore_ascii_case(&b) } else { a.to_lowercase().eq(b.to_lowercase()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::prelude::*;

    use super::*;

    fn whole(pattern: &str, text: &str) -> bool {
        matches(pattern, text, Place::Whole, &mut Steps::new())
    }

    fn words(pattern: &str, text: &str) -> bool {
        matches(pattern, text, Place::Words, &mut Steps::new())
    }

    #[test]
    fn the_whole_text_matches() {
        for text in ["Lunch plans", "LUNCH", "lunch", "luncx", "lunc?*"] {
            assert!(whole("lunc?*", text), "{text}");
        }
        for text in [" lunch", "lunc", "", "xlunch"] {
            assert!(!whole("lunc?*", text), "{text}");
        }
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("*", "", true),
            ("*", "a b", true),
            ("**", "", true),
            ("?", "", false),
            ("?", "ö", true),
            ("?", "ab", false),
            ("a*", "a", true),
            ("*a", "ba", true),
            ("*a", "ab", false),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "acb", false),
            ("*aab", "aaab", true),
            ("a*a", "a", false),
            ("a??b", "axxb", true),
            ("a?*?b", "axb", false),
            ("ÄÖ*", "äöü", true),
            ("ß", "SS", false),
            ("a\\*", "a*", false),
            ("[ab]", "a", false),
            (".", "x", false),
        ] {
            assert_eq!(whole(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn words_match_between_boundaries() {
        for text in ["An example event.", "exple", "An exciting triple-whammy", "EXAMPLE", "x-example"] {
            assert!(words("ex*ple", text), "{text}");
        }
        for (pattern, text, expected) in [
            ("ex*ple", "exampler", false),
            ("ex*ple", "hexample", false),
            ("ex*ple", "hexample exple", true),
            ("tea", "It's time for tea", true),
            ("tea", "team", false),
            ("tea", "steam team tea!", true),
            ("tea", "tea_time", false),
            ("tea", "2tea", false),
            ("tea", "étea", true),
            ("@room", "hey@room", true),
            ("@room", "@roomy", false),
            ("a b", "xa b a b", true),
            ("t?a", "tea", true),
            ("t?a", "t a", true),
            ("t?", "te", true),
            ("t?", "tea", false),
            ("*", "", true),
            ("*", "anything", true),
            ("", "anything", false),
            ("", "", true),
            ("c*t", "cat catalogue", true),
            ("c*t", "cats catalogue", false),
            ("日本", "日本語", true),
        ] {
            assert_eq!(words(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn names_are_no_patterns() {
        let contains = |words, text| contains_words(words, text, &mut Steps::new());
        assert!(contains("Bob", "hi bob!"));
        assert!(contains("what?", "what? yes"));
        assert!(contains("* star *", "a * Star * b"));
        assert!(!contains("what?", "whatx"));
        assert!(!contains("*", "anything"));
        assert!(!contains("", "anything"));
        assert!(!contains("", ""));
    }

    #[test]
    fn t29_the_work_is_bounded() {
        let text = "a ".repeat(30_000);
        let pattern = format!("{}b", "a ".repeat(1000));
        let mut steps = Steps::new();
        assert!(!matches(&pattern, &text, Place::Words, &mut steps));
        assert_eq!(steps.0, 0, "such a search uses all steps");
        assert!(!matches("a", "a", Place::Words, &mut steps), "and leaves none for others");
        let stars = "*a".repeat(1000) + "b";
        let mut steps = Steps::new();
        assert!(!matches(&stars, &text, Place::Whole, &mut steps));
        assert!(steps.0 > STEPS_LIMIT / 2, "stars cost nothing extra");
    }

    /// Matching by definition: every way to split.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|skip| naive(rest, &text[skip..])),
            Some((wanted, rest)) => text
                .split_first()
                .is_some_and(|(found, text)| (*wanted == '?' || same_letter(*wanted, *found)) && naive(rest, text)),
        }
    }

    fn naive_words(pattern: &[char], text: &[char]) -> bool {
        let edge = |at: usize| at == 0 || at == text.len() || !is_word_character(text[at - 1]) || !is_word_character(text[at]);
        (0..=text.len())
            .filter(|start| edge(*start))
            .any(|start| (start..=text.len()).filter(|end| edge(*end)).any(|end| naive(pattern, &text[start..end])))
    }

    proptest! {
        #[test]
        fn matching_is_as_defined(pattern in "[ab?* ]{1,7}", text in "[abA é]{0,9}") {
            let (pattern_chars, text_chars): (Vec<_>, Vec<_>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(whole(&pattern, &text), naive(&pattern_chars, &text_chars));
            prop_assert_eq!(words(&pattern, &text), naive_words(&pattern_chars, &text_chars));
        }
    }
}
