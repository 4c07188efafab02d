/** One event of the file that all engines read. Times are microseconds; engines that count milliseconds take them as such. */
public class Event {
    public long id;
    public long t;
    public int key;
    public int type;
    public double value;

    public Event() {}

    public Event(long id, long t, int key, int type, double value) {
        this.id = id;
        this.t = t;
        this.key = key;
        this.type = type;
        this.value = value;
    }

    public long getId() {
        return id;
    }

    public long getT() {
        return t;
    }

    public int getKey() {
        return key;
    }

    public int getType() {
        return type;
    }

    public double getValue() {
        return value;
    }
}
