# Makes visits_new and its partitions, empty; visits is not touched yet. Called again it changes nothing.
class PartitionVisits < ActiveRecord::Migration[6.1]
  disable_ddl_transaction! # for the way down, which waits

  def up
    transaction do
      enable_extension "migrate_ext" # a superuser's business; no more than a NOTICE where it is there
      execute "SELECT migrate_ext.partition_by_range('visits', 'id', 10000)"
    end
  end

  def down
    execute "CALL migrate_ext.cancel('visits')"
  end
end
