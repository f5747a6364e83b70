//! FIFO list of questions, from which any question may be removed.
#![expect(clippy::expl_impl_clone_on_copy, reason = "the adapter is written by a macro")]

use core::fmt;

use intrusive_collections::{LinkedList, LinkedListAtomicLink, UnsafeRef, intrusive_adapter};
use wsk::memory::Ref;

use super::Question;

pub(super) type Link = LinkedListAtomicLink;

intrusive_adapter!(Links = UnsafeRef<Question>: Question { link => LinkedListAtomicLink });

/// # Invariants
/// Each question in the list came from [`Ref::into_raw`], and that count is the list's.
pub(super) struct QuestionList {
    list: LinkedList<Links>,
    len: usize,
}

impl QuestionList {
    pub(super) fn new() -> Self {
        Self { list: LinkedList::new(Links::NEW), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a question at the end; one that is in a line already stays there.
    pub(super) fn push(&mut self, question: Ref<Question>) {
        if question.link.is_linked() {
            return;
        }
        // SAFETY: a `Ref` never moves its value, and the count given up here is the list's.
        self.list.push_back(unsafe { UnsafeRef::from_raw(Ref::into_raw(question)) });
        self.len += 1;
    }

    /// Takes the first.
    pub(super) fn pop(&mut self) -> Option<Ref<Question>> {
        self.list.pop_front().map(|question| self.unlinked(question))
    }

    /// Takes the first that fits.
    pub(super) fn remove_where(&mut self, fits: impl Fn(&Question) -> bool) -> Option<Ref<Question>> {
        let mut cursor = self.list.front_mut();
        while !fits(cursor.get()?) {
            cursor.move_next();
        }
        cursor.remove().map(|question| self.unlinked(question))
    }

    /// Takes this one; false if it is in no line.
    ///
    /// # Safety
    /// If it is in a line, it is in this one.
    pub(super) unsafe fn remove(&mut self, question: &Ref<Question>) -> bool {
        if !question.link.is_linked() {
            return false;
        }
        // SAFETY: the question is linked, and the caller says that it is linked here.
        let mut cursor = unsafe { self.list.cursor_mut_from_ptr(Ref::as_ptr(question)) };
        let removed = cursor.remove();
        removed.map(|question| self.unlinked(question)).is_some()
    }

    /// A question that is no longer in the list, with the list's count.
    fn unlinked(&mut self, question: UnsafeRef<Question>) -> Ref<Question> {
        self.len -= 1;
        // SAFETY: the list owned this count, by its invariant, and has just given it up.
        unsafe { Ref::from_raw(UnsafeRef::into_raw(question)) }
    }
}

impl Drop for QuestionList {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

impl fmt::Debug for QuestionList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list.iter()).finish()
    }
}
