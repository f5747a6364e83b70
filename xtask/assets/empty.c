/* An archive with no member is refused, so the libraries that have nothing to give hold this. */
typedef int nothing;
