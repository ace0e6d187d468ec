# From here on visits is the partitioned table; visits_orig is kept up to date for the way down.
class SwapVisits < ActiveRecord::Migration[6.1]
  disable_ddl_transaction! # procedures wait between transactions of their own

  def up
    execute "SET statement_timeout = 0" # config/database.yml has one for the application's sake
    execute "CALL migrate_ext.wait_for('visits', 'live')"
    execute "CALL migrate_ext.finalize('visits')"
  end

  def down
    execute "SET statement_timeout = 0"
    execute "CALL migrate_ext.undo('visits')"
  end
end
