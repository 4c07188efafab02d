import com.sun.management.OperatingSystemMXBean;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;

/**
 * What the child process of each engine does: reads the event file, says that it is ready, and makes one pass over all
 * events for each line "pass" on its standard input. Answers are lines of JSON after "@".
 */
public abstract class Peer {
    /** Arguments of the form name=value, as tests/peers/workloads.py names them. */
    public static final Map<String, String> ARGUMENTS = new HashMap<>();

    private static final OperatingSystemMXBean SYSTEM =
            (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();

    /** The processor time at which the first event was given, where that is later than the start of the pass. */
    protected static volatile long beganCpu;

    protected static volatile long beganWall;

    /** Compiles and deploys the query; what start-up is measured with. */
    protected void prepare() throws Exception {}

    /** One pass over all events with fresh state. */
    protected abstract void pass(Event[] events, Matches matches) throws Exception;

    public static String text(String name) {
        String value = ARGUMENTS.get(name);
        if (value == null) {
            throw new IllegalArgumentException("no argument " + name);
        }
        return value;
    }

    public static int number(String name) {
        return Integer.parseInt(text(name));
    }

    /** From here on the time of the pass counts: what an engine does to deploy is start-up. */
    protected static void begin() {
        beganWall = System.nanoTime();
        beganCpu = SYSTEM.getProcessCpuTime();
    }

    protected static void run(String[] arguments, Peer peer) throws Exception {
        PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), true);
        System.setOut(System.err);
        for (String each : arguments) {
            int at = each.indexOf('=');
            ARGUMENTS.put(each.substring(0, at), each.substring(at + 1));
        }
        peer.prepare();
        out.println("@{\"ready\": true}");
        Event[] events = read(Path.of(text("events")));
        out.println("@{\"events\": " + events.length + "}");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); "pass".equals(line); line = in.readLine()) {
            Matches matches = new Matches();
            begin();
            peer.pass(events, matches);
            double cpu = (SYSTEM.getProcessCpuTime() - beganCpu) / 1e9;
            double wall = (System.nanoTime() - beganWall) / 1e9;
            out.println("@{\"cpu_s\": " + cpu + ", \"wall_s\": " + wall + ", \"count\": " + matches.count
                    + ", \"hash\": \"" + Long.toUnsignedString(matches.hash, 16) + "\"}");
        }
        System.exit(0);
    }

    private static Event[] read(Path path) throws Exception {
        ByteBuffer data = ByteBuffer.wrap(Files.readAllBytes(path)).order(ByteOrder.LITTLE_ENDIAN);
        Event[] events = new Event[data.remaining() / 24];
        for (int at = 0; at < events.length; at++) {
            events[at] = new Event(at, data.getLong(), data.getInt(), data.getInt(), data.getDouble());
        }
        return events;
    }
}
