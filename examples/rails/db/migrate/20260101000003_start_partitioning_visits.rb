# Background workers begin to copy when this migration's transaction commits; nobody waits for them here.
class StartPartitioningVisits < ActiveRecord::Migration[6.1]
  def up
    execute "SELECT migrate_ext.start('visits')"
    execute "SELECT migrate_ext.resume('visits')" # after a way down
  end

  def down
    execute "SELECT migrate_ext.pause('visits', 'rolled back')"
  end
end
