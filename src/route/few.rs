//! Lists that nearly always hold one thing.

use std::ops::Deref;

/// A list that does not change. One thing lies in it as it is, without the heap; several, or none, lie in a box of their
/// own. Of the hundred thousands of such lists that a configuration may have, each takes what one thing takes, or two words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Few<T>(Inner<T>);

/// [`Inner::Many`] never holds one: equal lists are of one form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Inner<T> {
    One(T),
    Many(Box<[T]>),
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Inner::Many(Box::default()))
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Inner::One(item) => std::slice::from_ref(item),
            Inner::Many(items) => items,
        }
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut items = items.into_iter();
        let (Some(first), second) = (items.next(), items.next()) else { return Self::default() };
        match second {
            None => Self(Inner::One(first)),
            Some(second) => Self(Inner::Many([first, second].into_iter().chain(items).collect())),
        }
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_list_has_what_it_was_made_of() {
        for length in 0..4 {
            let items: Vec<String> = (0..length).map(|index| index.to_string()).collect();
            let few: Few<String> = items.iter().cloned().collect();
            assert_eq!(&*few, items);
            assert!(few.iter().eq(&items));
        }
    }

    #[test]
    fn a_list_of_pointers_takes_two_words() {
        assert_eq!(size_of::<Few<Arc<String>>>(), 16);
    }
}
