import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.connector.Task;
import org.apache.kafka.connect.sink.SinkConnector;
import org.apache.kafka.connect.sink.SinkRecord;
import org.apache.kafka.connect.sink.SinkTask;

/** Throws records away and prints how many came, so that a worker is measured without any output. */
public class CountingSink extends SinkConnector {
    private Map<String, String> properties;

    @Override public String version() { return "1"; }
    @Override public void start(Map<String, String> properties) { this.properties = properties; }
    @Override public Class<? extends Task> taskClass() { return Counting.class; }
    @Override public List<Map<String, String>> taskConfigs(int most) {
        List<Map<String, String>> configs = new ArrayList<>();
        configs.add(properties);
        return configs;
    }
    @Override public void stop() {}
    @Override public ConfigDef config() { return new ConfigDef(); }

    /** The task. */
    public static class Counting extends SinkTask {
        private static final long STEP = 20_000;
        private long count;
        private long told;

        @Override public String version() { return "1"; }
        @Override public void start(Map<String, String> properties) {}
        @Override public void put(Collection<SinkRecord> records) {
            count += records.size();
            if (count - told >= STEP) {
                told = count;
                System.out.println("counted " + count);
            }
        }
        @Override public void stop() {}
    }
}
