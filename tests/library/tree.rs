//! The index of pended requests, from the library's own source file: however many there are, a search looks
//! at few.

use std::cell::{Cell, UnsafeCell};
use std::collections::HashMap;
use std::ptr::NonNull;

#[path = "../../src/listener/tree.rs"]
mod index;

use index::{Branches, Element, Tree};

thread_local! {
    /// Number of keys that were looked at.
    static LOOKS: Cell<usize> = const { Cell::new(0) };
}

/// A key that counts how often it is looked at.
#[derive(Clone, Copy, Debug)]
struct Key(u64);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        LOOKS.set(LOOKS.get() + 1);
        self.0 == other.0
    }
}

struct Item {
    key: u64,
    branches: UnsafeCell<Branches<Self>>,
}

// SAFETY: the branches are those of this item, and used for nothing else.
unsafe impl Element for Item {
    type Key = Key;

    fn key(&self) -> Key {
        Key(self.key)
    }

    fn word(key: Key) -> u64 {
        key.0
    }

    fn branches(&self) -> &UnsafeCell<Branches<Self>> {
        &self.branches
    }
}

/// A tree, and what is in it by another account.
struct Model {
    tree: Tree<Item>,
    items: HashMap<u64, NonNull<Item>>,
}

impl Model {
    fn new() -> Self {
        Self { tree: Tree::new(), items: HashMap::new() }
    }

    fn insert(&mut self, key: u64) {
        let item = Box::new(Item { key, branches: UnsafeCell::new([None; 2]) });
        let item = NonNull::from(Box::leak(item));
        // SAFETY: the item is new, and is freed after it was removed.
        unsafe { self.tree.insert(item) };
        self.items.insert(key, item);
    }

    fn remove(&mut self, key: u64) {
        let Some(item) = self.items.remove(&key) else { return };
        // SAFETY: the item was leaked, and is freed below.
        assert_eq!(self.tree.remove(unsafe { item.as_ref() }), Some(item));
        // SAFETY: the item was leaked, and is freed below; it can be asked for again, and is not there.
        assert_eq!(self.tree.remove(unsafe { item.as_ref() }), None);
        // SAFETY: it was leaked when it was made, and is in the tree no more.
        drop(unsafe { Box::from_raw(item.as_ptr()) });
    }

    /// The most and the average of keys looked at to find one.
    fn looks(&mut self) -> (usize, usize) {
        let (mut most, mut sum) = (0, 0);
        for (&key, &item) in &self.items {
            LOOKS.set(0);
            assert_eq!(self.tree.find(Key(key)), Some(item));
            most = most.max(LOOKS.get());
            sum += LOOKS.get();
        }
        (most, sum / self.items.len())
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        while let Some(item) = self.tree.any() {
            // SAFETY: what is in the tree was leaked and not freed.
            let key = unsafe { item.as_ref() }.key;
            self.remove(key);
        }
        assert!(self.items.is_empty(), "the tree has lost some");
    }
}

/// With ten thousand elements a search looks at 14, on average, and never at many; before, ten thousand in 32
/// lists were 156, and 312 when there was nothing to find.
#[test]
fn a_search_among_ten_thousand_looks_at_few() {
    type Keys = fn(u64) -> u64;
    let orders: [(&str, Keys); 5] = [
        ("counting", |number| number),
        ("serial numbers", |number| number << 32),
        ("addresses", |number| number * 0x40 + 0xFFFF_8000_0000_0000),
        ("both", |number| (number << 32) ^ ((number % 97) * 0x40)),
        ("falling", |number| u64::MAX - number * 0x1000),
    ];
    for (order, key) in orders {
        let mut model = Model::new();
        for number in 0..10_000 {
            model.insert(key(number));
        }
        let (most, average) = model.looks();
        assert!(most <= 40 && average < 16, "{order}: {most} at most, {average} on average");
        LOOKS.set(0);
        assert!(model.tree.find(Key(key(10_001))).is_none());
        assert!(LOOKS.get() <= 40, "{order}: {} to find nothing", LOOKS.get());
        // Elements that go make it no deeper.
        for number in 0..5_000 {
            model.remove(key(number * 2));
        }
        let (after, average) = model.looks();
        assert!(after <= most && average < 16, "{order}: {after} at most, {average} on average");
    }
}

/// Keys that were put in are there, those that were taken out are not, whatever the order.
#[test]
fn elements_come_and_go_in_any_order() {
    let mut state = 7_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    for _ in 0..50 {
        let mut model = Model::new();
        for _ in 0..2_000 {
            let key = random() % 300;
            if model.items.contains_key(&key) {
                model.remove(key);
            } else {
                model.insert(key);
            }
            let key = random() % 300;
            assert_eq!(model.tree.find(Key(key)), model.items.get(&key).copied());
        }
    }
}

/// A second element with the same key is left out, and its removal removes nothing.
#[test]
fn there_is_one_element_of_each_key() {
    let mut model = Model::new();
    for key in 0..100 {
        model.insert(key);
    }
    let second = Item { key: 42, branches: UnsafeCell::new([None; 2]) };
    // SAFETY: it is in no tree, and does not get into this one.
    unsafe { model.tree.insert(NonNull::from(&second)) };
    assert_eq!(model.tree.find(Key(42)), model.items.get(&42).copied());
    assert_eq!(model.tree.remove(&second), None);
    assert_eq!(model.tree.find(Key(42)), model.items.get(&42).copied());
}
