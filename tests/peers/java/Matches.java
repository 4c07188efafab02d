/** Number of matches, and a hash of them that does not depend on their order: the sum of one hash for each match. */
public final class Matches {
    public long count;
    public long hash;

    public void add(long a) {
        take(mix(0, a));
    }

    public void add(long a, long b) {
        take(mix(mix(0, a), b));
    }

    public void add(long a, long b, long c) {
        take(mix(mix(mix(0, a), b), c));
    }

    public void add(long a, long b, long c, long d) {
        take(mix(mix(mix(mix(0, a), b), c), d));
    }

    public void add(long[] numbers) {
        long h = 0;
        for (long number : numbers) {
            h = mix(h, number);
        }
        take(h);
    }

    /** The hash of a list whose last number is added; the same in children/protocol.py. */
    public static long mix(long h, long number) {
        h = (h ^ number) * 0x9E3779B97F4A7C15L;
        return h ^ (h >>> 29);
    }

    private void take(long h) {
        count++;
        hash += h;
    }
}
