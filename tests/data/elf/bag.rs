// A generic method and a closure, named in both ways of rustc.
#![no_std]
#[panic_handler]
fn on_panic(_: &core::panic::PanicInfo) -> ! { loop {} }
pub mod leaky {
    pub struct Bag<T>(pub T);
    impl<T: Copy> Bag<T> {
        #[inline(never)]
        pub fn put(&mut self, item: &T) { self.0 = *item; }
    }
}
#[no_mangle]
pub extern "C" fn entry(n: u64) -> u64 { let mut bag = leaky::Bag(n); bag.put(&(n + 1)); bag.0 }
